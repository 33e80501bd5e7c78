// What docs/operators.md says, held against the command: each example passes `verify`, has the gradients that its row
// names, and no word of the grammar lacks an example.
#include <fmt/format.h>
#include <algorithm>
#include <cctype>
#include <map>
#include <sstream>
#include "command.h"
#include "convsmith/file.h"
#include "convsmith/problem.h"
#include "generators/pass.h"
#include "runtime/problem_words.h"

namespace convsmith {
namespace {

struct Row {
  int line;
  std::string word, gradients, example;
};

std::ostream &operator<<(std::ostream &out, const Row &row) {
  return out << "docs/operators.md:" << row.line << " \"" << row.example << "\"";
}

std::string trimmed(const std::string &s) {
  const size_t from = s.find_first_not_of(' ');
  return from == std::string::npos ? "" : s.substr(from, s.find_last_not_of(' ') + 1 - from);
}

// Of the table whose fourth and last cell is an example in backticks.
std::vector<Row> rows() {
  std::vector<Row> found;
  std::istringstream text(read_file(CONVSMITH_SOURCE "/docs/operators.md"));
  int number = 0;
  for (std::string line; std::getline(text, line);) {
    number++;
    std::vector<std::string> cells;
    std::istringstream parts(line);
    for (std::string cell; std::getline(parts, cell, '|');) cells.push_back(trimmed(cell));
    if (cells.size() != 5 || cells[4].size() < 2 || cells[4].front() != '`' || cells[4].back() != '`') continue;
    found.push_back({number, cells[1], cells[3], cells[4].substr(1, cells[4].size() - 2)});
  }
  return found;
}

// "12_op_correlation"
std::string test_name(const testing::TestParamInfo<Row> &info) {
  std::string name = fmt::format("{:02}_", info.index);
  for (const char c : info.param.word)
    if (std::isalnum(static_cast<unsigned char>(c))) name += c;
    else if (name.back() != '_') name += '_';
  return name;
}

class DocsExample : public CommandTest, public testing::WithParamInterface<Row> {};

TEST_P(DocsExample, Verifies) { EXPECT_EQ(succeed({"verify", GetParam().example, "--quiet"}), "") << GetParam(); }

INSTANTIATE_TEST_SUITE_P(Operators, DocsExample, testing::ValuesIn(rows()), test_name);

TEST(Docs, RowsNameTheGradientsOfTheirExamples) {
  const std::map<PassKind, std::string> letters = {{PassKind::input_gradient, "x"},
                                                   {PassKind::weight_gradient, "w"},
                                                   {PassKind::bias_gradient, "b"},
                                                   {PassKind::activation_gradient, "a"},
                                                   {PassKind::train_step, "t"}};
  for (auto &row : rows()) {
    std::string gradients;
    for (const PassKind pass : passes_of(Problem::parse(row.example)))
      if (letters.count(pass)) gradients += (gradients.empty() ? "" : " ") + letters.at(pass);
    EXPECT_EQ(row.gradients, gradients) << row;
  }
}

TEST(Docs, EveryWordOfTheGrammarHasAnExample) {
  using namespace problem_words;
  std::vector<std::string> words;  // of all examples, with no parameters
  for (auto &row : rows()) {
    std::istringstream text(row.example);
    for (std::string word; text >> word;)
      words.push_back(word.starts_with("activation=") ? word.substr(0, word.find(':')) : word);
  }
  EXPECT_GE(rows().size(), 40u);
  const auto is_shown = [&](Key key, const auto &list) {
    for (auto &word : list)
      EXPECT_TRUE(std::count(words.begin(), words.end(), name(key) + "=" + std::string(word.text)))
          << name(key) << "=" << word.text << " has no example";
  };
  for (const std::string_view key : keys)
    EXPECT_TRUE(
        std::any_of(words.begin(), words.end(), [&](auto &word) { return word.starts_with(std::string(key) + "="); }))
        << key << " has no example";
  is_shown(Key::op, ops);
  is_shown(Key::border, borders);
  is_shown(Key::type, types);
  is_shown(Key::out_type, out_types);
  is_shown(Key::scale, scales);
  is_shown(Key::layout, layouts);
  is_shown(Key::activation, activations);
}

}  // namespace
}  // namespace convsmith
