// Answers image files with an exported model, by the code that TensorFlow Serving is made of: LoadSavedModel with the
// tag "serve", and Session::Run on the names that the signature gives. No Python takes part.
//
// serve_bundle FOLDER [FILE...]: the files are one batch. Of each it writes a line
//   reject <tab> confidence <tab> label <tab> probability of the first class <space> of the second ...

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/public/session.h"

namespace tf = tensorflow;

namespace {

constexpr char kSignature[] = "serving_default";
const std::vector<std::string> kOutputs = {"reject", "confidence", "label", "probabilities"};

int Complain(const std::string& what) {
  std::cerr << "serve_bundle: " << what << std::endl;
  return 1;
}

bool Read(const char* path, tf::tstring* bytes) {
  std::ifstream file(path, std::ios::binary);
  *bytes = std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  return !file.fail() || file.eof();
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) return Complain("give the folder of a version, and image files");

  tf::SavedModelBundle bundle;
  const auto loaded = tf::LoadSavedModel(tf::SessionOptions(), tf::RunOptions(), arguments[1],
                                         {"serve"}, &bundle);
  if (!loaded.ok()) return Complain(loaded.ToString());

  const auto& signatures = bundle.GetSignatures();
  if (!signatures.count(kSignature)) return Complain("there is no signature serving_default");
  const auto& signature = signatures.at(kSignature);

  const int files = count - 2;
  tf::Tensor batch(tf::DT_STRING, tf::TensorShape({files}));
  for (int i = 0; i < files; ++i) {
    if (!Read(arguments[i + 2], &batch.vec<tf::tstring>()(i))) return Complain(std::string("cannot read ") + arguments[i + 2]);
  }

  std::vector<std::string> names;
  for (const auto& output : kOutputs) names.push_back(signature.outputs().at(output).name());
  std::vector<tf::Tensor> answers;
  const auto ran =
      bundle.GetSession()->Run({{signature.inputs().at("image_bytes").name(), batch}}, names, {}, &answers);
  if (!ran.ok()) return Complain(ran.ToString());

  const auto probabilities = answers[3].matrix<float>();
  for (int i = 0; i < files; ++i) {
    std::printf("%d\t%.9g\t%s\t", answers[0].vec<tf::int32>()(i), answers[1].vec<float>()(i),
                answers[2].vec<tf::tstring>()(i).c_str());
    for (int j = 0; j < probabilities.dimension(1); ++j) std::printf(j ? " %.9g" : "%.9g", probabilities(i, j));
    std::printf("\n");
  }
  return 0;
}
