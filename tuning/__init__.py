"""What we search and how: named spaces, a command that searches them overnight, and its report."""
