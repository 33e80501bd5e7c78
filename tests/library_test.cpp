// Kernel tables, linked in and loaded.
#include "convsmith/library.h"
#include <gtest/gtest.h>
#include <string>
#include "edge_data.h"
#include "plain_library.h"

namespace convsmith {
namespace {

void expect_edges(const Pass &forward) {
  const Tensor x = forward.make("x"), weight = forward.make("weight"), y = forward.make("y");
  for (std::int64_t row = 0; row < 6; row++) {
    for (std::int64_t column : {0, 1, 6, 7}) x.at({0, 0, row, column}) = 1;
  }
  weight.at({0, 0, 0, 0}) = 1;
  weight.at({0, 0, 0, 1}) = -1;
  forward({{"y", y}, {"weight", weight}, {"x", x}});  // in any order
  const float row[] = {0, 1, 0, 0, 0, -1, 0};
  for (std::int64_t i = 0; i < 42; i++) EXPECT_EQ(y.at({0, 0, i / 7, i % 7}), row[i % 7]) << i;
}

TEST(Library, RunsALinkedTable) {
  const Library library(plain_library());
  EXPECT_EQ(library.name(), "plain");
  EXPECT_EQ(library.version(), "1.0");
  const Pass forward = library.pass("edge", "forward");
  EXPECT_EQ(forward.title(), "edge forward");
  EXPECT_EQ(forward.arguments(), 3);
  EXPECT_EQ(forward.outputs(), 1);
  EXPECT_TRUE(forward.has("weight"));
  EXPECT_FALSE(forward.has("bias"));
  expect_edges(forward);
}

#ifdef CONVSMITH_PLAIN_LIBRARY
TEST(Library, RunsALoadedTable) {
  std::optional<Library> library = Library::open(CONVSMITH_PLAIN_LIBRARY, "plain");
  const Library copy = *library;
  library.reset();
  EXPECT_NE(&copy.table(), plain_library());
  expect_edges(copy.pass("edge", "forward"));
}

TEST(Library, NamesTheMissingSymbol) {
  const std::string message = message_of([] { Library::open(CONVSMITH_PLAIN_LIBRARY, "other"); });
  EXPECT_NE(message.find("expected the library other: "), std::string::npos) << message;
  EXPECT_NE(message.find("other_library"), std::string::npos) << message;
}
#endif

TEST(Library, NamesTheMissingFile) {
  EXPECT_EQ(message_of([] { Library::open("none.so", "none"); }),
            "none.so: cannot load: ./none.so: cannot open shared object file: No such file or directory");
}

TEST(Library, ListsPasses) {
  const Library library(plain_library());
  EXPECT_EQ(static_cast<int>(library.passes().size()), library.table().pass_count);
  EXPECT_FALSE(library.find("edge", "bias_gradient"));
  const std::string message = message_of([&] { (void)library.pass("edge", "bias_gradient"); });
  EXPECT_NE(message.find("expected one of edge forward, edge input_gradient, "), std::string::npos) << message;
  EXPECT_NE(message.find(", got edge bias_gradient"), std::string::npos) << message;
}

TEST(Library, ChecksTheTable) {
  EXPECT_EQ(message_of([] { Library{nullptr}; }), "library: expected a kernel table, got null");
  convsmith_library table = *plain_library();
  table.abi = CONVSMITH_ABI + 1;
  EXPECT_EQ(message_of([&] { Library{&table}; }), "library: expected ABI " + std::to_string(CONVSMITH_ABI) + ", got " + std::to_string(CONVSMITH_ABI + 1));
}

TEST(Library, SetsTheLevel) {
  const Library library(plain_library());
  EXPECT_EQ(library.levels(), (std::vector<std::string>{"plain", "unavailable"}));
  EXPECT_EQ(library.level(), "plain");
  library.set_level("plain");
  EXPECT_EQ(message_of([&] { library.set_level("unavailable"); }),
            "library plain: level unavailable: this processor has no such instructions");
  EXPECT_EQ(message_of([&] { library.set_level("avx9"); }),
            "library plain: expected any or a level out of plain, unavailable, got avx9");
}

TEST(Pass, ChecksItsArguments) {
  const Library library(plain_library());
  const Pass forward = library.pass("edge", "forward");
  const Tensor x = forward.make("x"), weight = forward.make("weight"), y = forward.make("y");
  const std::string problem = " (problem: in=6x8 kernel=1x2)";
  EXPECT_EQ(message_of([&] {
              forward({{"x", x}, {"y", y}});
            }),
            "edge forward: expected a tensor for weight, got none" + problem);
  EXPECT_EQ(message_of([&] {
              forward({{"x", x}, {"weight", weight}, {"y", y}, {"y", y}});
            }),
            "edge forward: expected y once, got it twice" + problem);
  EXPECT_EQ(message_of([&] {
              forward({{"z", x}});
            }),
            "edge forward: expected an argument out of x, weight, y, got z" + problem);
  EXPECT_EQ(message_of([&] {
              forward({{"x", Tensor()}});
            }),
            "edge forward: expected a tensor for x, got an undefined one" + problem);
  EXPECT_EQ(message_of([&] {
              forward({{"x", y}, {"weight", weight}, {"y", y}});
            }),
            "edge forward: x has the wrong shape" + problem);
  EXPECT_EQ(message_of([&] { (void)forward.make("z"); }),
            "edge forward: expected an argument out of x, weight, y, got z" + problem);
  EXPECT_EQ(message_of([&] {
              (void)forward.fit("x", Tensor({6, 8}));
            }),
            "edge forward: x: expected 1x1x6x8 of f32, got 6x8 of f32" + problem);
}

TEST(Library, RunsACallersLoop) {
  const Library library(plain_library());
  std::vector<int> runs(7);
  library.parallel_for(7, [&](int i) { runs.at(std::size_t(i))++; });
  EXPECT_EQ(runs, std::vector<int>(7, 1));
  library.parallel_for(0, [&](int) { FAIL(); });
  EXPECT_EQ(message_of([&] {
              library.parallel_for(5, [](int i) {
                if (i > 1) throw Error("at " + std::to_string(i));
              });
            }),
            "at 2");
  EXPECT_EQ(message_of([&] { library.parallel_for(-1, [](int) {}); }), "library plain: the parallel loop returned -5");
}

TEST(Pass, MakesTensorsOfRunTimeExtents) {
  const Pass forward = Library(plain_library()).pass("batch", "forward");
  EXPECT_EQ(message_of([&] { (void)forward.make("x"); }).find("batch forward: x is of ?x"), 0u);
  EXPECT_THROW((void)forward.make("x", {3, 2, 5, 5}), Error);
  const Tensor x = forward.make("x", {3, 2, 5, 4});
  EXPECT_EQ(x.strides(), (Shape{40, 1, 8, 2}));
  EXPECT_EQ(forward.fit("x", Tensor({7, 2, 5, 4})).strides(), (Shape{40, 1, 8, 2}));
}

}  // namespace
}  // namespace convsmith
