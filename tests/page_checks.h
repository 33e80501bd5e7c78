// What holds of every page of results.
#pragma once
#include <gtest/gtest.h>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <vector>

namespace convsmith {

inline std::size_t count(const std::string &text, const std::string &word) {
  std::size_t found = 0;
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) found++;
  return found;
}

inline bool has(const std::string &text, const std::string &word) { return count(text, word) > 0; }

// What follows a word up to the next quotation mark, wherever the word occurs.
inline std::vector<std::string> values_after(const std::string &text, const std::string &word) {
  std::vector<std::string> values;
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    const std::size_t start = at + word.size();
    values.push_back(text.substr(start, text.find('"', start) - start));
  }
  return values;
}

inline std::vector<double> numbers_after(const std::string &text, const std::string &word) {
  std::vector<double> numbers;
  for (const std::string &value : values_after(text, word)) {
    char *end = nullptr;
    numbers.push_back(std::strtod(value.c_str(), &end));
    EXPECT_TRUE(!value.empty() && *end == 0 && std::isfinite(numbers.back())) << word << value;
  }
  return numbers;
}

// XML whose elements are closed in the order in which they were opened, that needs no other file, whose links lead to
// parts of itself and whose numbers are numbers.
inline void expect_whole(const std::string &page) {
  const std::string doctype = "<!DOCTYPE html>";
  ASSERT_TRUE(page.starts_with(doctype));
  std::vector<std::string> open;
  for (std::size_t at = page.find('<', doctype.size()); at != std::string::npos; at = page.find('<', at + 1)) {
    const std::size_t end = page.find('>', at);
    ASSERT_NE(end, std::string::npos);
    ASSERT_LT(end, page.find('<', at + 1));
    EXPECT_EQ(std::count(page.begin() + std::ptrdiff_t(at), page.begin() + std::ptrdiff_t(end), '"') % 2, 0);
    const std::string name = page.substr(at + 1, page.find_first_of(" />", at + 2) - at - 1);
    if (page[end - 1] == '/') continue;
    if (name[0] != '/') open.push_back(name);
    else {
      ASSERT_FALSE(open.empty());
      ASSERT_EQ("/" + open.back(), name);
      open.pop_back();
    }
  }
  EXPECT_TRUE(open.empty());
  for (std::size_t at = page.find('&'); at != std::string::npos; at = page.find('&', at + 1)) {
    const std::string entity = page.substr(at, page.find(';', at) + 1 - at);
    EXPECT_TRUE(entity == "&amp;" || entity == "&lt;" || entity == "&gt;" || entity == "&quot;" || entity == "&#10;")
        << entity;
  }
  for (const char *word : {"http", "src=", "url(", "@import", "<script", "<link", "onload"})
    EXPECT_FALSE(has(page, word)) << word;
  for (const std::string &target : values_after(page, "href=\""))
    EXPECT_TRUE(has(page, "id=\"" + target.substr(1) + '"')) << target;
  for (const char *word : {" x=\"", " y=\"", " width=\"", " height=\"", " cx=\"", " cy=\""})
    for (const double value : numbers_after(page, word)) EXPECT_GE(value, 0) << word;
  for (const std::string &path : values_after(page, " d=\""))
    EXPECT_EQ(path.find_first_not_of("MLHVhv-.0123456789 "), std::string::npos) << path;
  for (const char *word : {"nan ", "inf ", "nan\"", "inf\"", ">nan", ">inf"}) EXPECT_FALSE(has(page, word)) << word;
}

}  // namespace convsmith
