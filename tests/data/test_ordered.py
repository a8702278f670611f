import numpy as np
import pytest

from keras_vit.data.image_set import ImageSet
from keras_vit.data.ordered import in_given_order, read_order
from keras_vit.errors import InputError

pytestmark = pytest.mark.same_on_every_backend

IMAGES = ImageSet("images", ("1", "2", "10"), [b"a", b"b", b"c"], ("a", "b", "c"), np.array([0, 1, 2]))


def test_the_classes_have_the_given_order():
    found = in_given_order(IMAGES, read_order("10, 2,1"))
    assert found.class_names == ("10", "2", "1")
    assert [found.class_names[label] for label in found.labels] == ["10", "2", "1"]
    assert found.names == ("c", "b", "a")


def test_names_with_a_comma_are_a_list():
    assert read_order('["a, b", "c"]') == ("a, b", "c")


WRONG = {
    "missing": ("1,2", 'does not name "10"'),
    "unknown": ("1,2,10,20", 'names "20", which is not a class'),
    "twice": ("1,2,2,10", 'the class "2" twice'),
    "one": ("1", "from the lowest to the highest"),
    "empty": ("1,,2", "without a name"),
}


@pytest.mark.parametrize(("text", "told"), WRONG.values(), ids=WRONG)
def test_wrong_orders(text, told):
    with pytest.raises(InputError, match=told):
        in_given_order(IMAGES, read_order(text))
