// Kernels that take any batch or any spatial extent: what they refuse, how much memory they ask for, and empty batches.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <atomic>
#include <cstdlib>
#include "convsmith/error.h"
#include "emitted.h"
#include "tools/support/process.h"
#include "tools/verify/reference.h"

namespace convsmith {
namespace {

Emitted open_kernels() {
  return emitted("open",
                 {kernel("any", "all", "n=? ic=3 oc=9 in=?x? kernel=3 stride=2x1 pad=1 bias=1 activation=relu"),
                  kernel("mirror", "forward,input_gradient", "in=?x? kernel=5 pad=2 border=reflect"),
                  kernel("round", "forward,input_gradient", "in=? kernel=5 pad=2 border=wrap"),
                  kernel("up", "forward", "op=transposed n=? ic=4 oc=8 in=?x9 kernel=3 stride=2 pad=1"),
                  kernel("crop", "forward", "in=? kernel=2 pad=-2:-3"),
                  kernel("solid", "forward", "n=? ic=2 oc=5 in=?x?x? kernel=3 stride=2 pad=1")},
                 "host,x86-64");
}

class OpenExtents : public testing::Test {
 protected:
  const Library library = open_kernels().open();

  // The tensors of a call at sizes, and then with some change to their descriptors.
  template<class Change>
  std::string message(const char *kernel_name, const char *pass_name, const Shape &sizes, Change change) const {
    const Pass pass = library.pass(kernel_name, pass_name);
    std::vector<Tensor> tensors;
    std::vector<convsmith_tensor> descriptors;
    for (int i = 0; i < pass.arguments(); i++) {
      tensors.emplace_back(pass.describe(pass.argument_name(i), sizes));
      descriptors.push_back(tensors.back().c());
    }
    change(descriptors);
    for (int i = 0; i < library.table().pass_count; i++) {
      const convsmith_pass &p = library.table().passes[i];
      convsmith_error error{};
      if (p.kernel == std::string(kernel_name) && p.pass == std::string(pass_name))
        return p.run(descriptors.data(), &error) == CONVSMITH_OK ? "ok" : error.message;
    }
    return "no such pass";
  }
  std::string message(const char *kernel_name, const char *pass_name, const Shape &sizes) const {
    return message(kernel_name, pass_name, sizes, [](auto &) {});
  }
};

TEST_F(OpenExtents, NamesWhatIsOpen) {
  EXPECT_THAT(library.pass("any", "forward").size_names(), testing::ElementsAre("n", "in_h", "in_w"));
  EXPECT_THAT(library.pass("up", "forward").size_names(), testing::ElementsAre("n", "in_h"));
  EXPECT_THAT(library.pass("round", "forward").size_names(), testing::ElementsAre("in_w"));
  const convsmith_tensor y = library.pass("any", "forward").describe("y", {2, 7, 5});
  EXPECT_THAT(Shape(y.extent, y.extent + 4), testing::ElementsAre(2, 9, 4, 5));
  EXPECT_THAT(Shape(y.stride, y.stride + 4), testing::ElementsAre(180, 1, 45, 9));
  EXPECT_EQ(library.pass("any", "forward").describe("y").extent[2], run_time);
  EXPECT_THROW(library.pass("any", "forward").describe("y", {2, 7}), Error);
  EXPECT_THROW(library.pass("any", "forward").workspace(1), Error);
}

TEST_F(OpenExtents, TakesWhatFitsAndRefusesTheRestBeforeTheCall) {
  EXPECT_EQ(message("any", "forward", {1, 1, 1}), "ok");
  EXPECT_EQ(message("any", "forward", {3, 40, 33}), "ok");
  EXPECT_EQ(message("any", "forward", {2, 7, 5}, [](auto &t) { t.back().extent[2] = 3; }),
            "open_any_forward: y: axis 2: expected 4 elements, got 3");
  EXPECT_EQ(message("any", "forward", {2, 7, 5}, [](auto &t) { t.back().extent[0] = 1; }),
            "open_any_forward: y: axis 0: expected 2 elements, got 1");
  EXPECT_EQ(message("any", "forward", {2, 7, 5}, [](auto &t) { t[0].extent[3] = 0; }),
            "open_any_forward: x: axis 3: expected from 1 to 2^31-1 elements, got 0");
  EXPECT_EQ(message("any", "forward", {2, 7, 5}, [](auto &t) { t[0].extent[3] = INT64_MAX; }),
            "open_any_forward: x: axis 3: expected from 1 to 2^31-1 elements, got 9223372036854775807");
  EXPECT_EQ(message("any", "forward", {2, 7, 5}, [](auto &t) { t[0].extent[2] = 1 << 30; }),
            "open_any_forward: in_h: 1073741824 elements, padded, pass 2^30");
  EXPECT_EQ(message("any", "forward", {2, 7, 5}, [](auto &t) { t[0].extent[1] = 4; }),
            "open_any_forward: x: axis 1: expected 3 elements, got 4");
  // Axes whose bordered extent the window, the reflection or the wrapping does not fit into.
  EXPECT_EQ(message("mirror", "forward", {3, 3}), "ok");
  EXPECT_EQ(message("mirror", "forward", {3, 2}),
            "open_mirror_forward: in_w: expected at least 3 elements for the padding of 2, got 2");
  EXPECT_EQ(message("mirror", "input_gradient", {2, 3}),
            "open_mirror_input_gradient: in_h: expected at least 3 elements for the padding of 2, got 2");
  EXPECT_EQ(message("round", "forward", {2}), "ok");
  EXPECT_EQ(message("round", "forward", {1}),
            "open_round_forward: in_w: expected at least 2 elements for the padding of 2, got 1");
  EXPECT_EQ(message("crop", "forward", {7}), "ok");
  EXPECT_EQ(message("crop", "forward", {6}),
            "open_crop_forward: in_w: expected an extent that the window fits into, got 6");
  EXPECT_EQ(message("crop", "forward", {7}, [](auto &t) { t[0].extent[2] = 5; }),
            "open_crop_forward: in_w: expected at least 6 elements, got 5");
  EXPECT_EQ(message("up", "forward", {1, 1}), "ok");
}

// Tiles whose last is shifted inwards over its neighbour where the extents are no shorter, of every axis.
TEST(OpenTiles, AreNotShiftedPastTheBeginning) {
  KernelRequest k = kernel("sum", "forward", "ic=16 oc=16 in=?x? kernel=1");
  k.schedule[PassKind::forward] = {"cpu_direct", "block=0,0,0,0,0 pad=0 tile=8,5,6,1,1"};
  const Library library = emitted("tiles", {k}, "host").open();
  const Pass pass = library.pass("sum", "forward");
  for (const Shape &size : {Shape{3, 40}, {40, 3}, {1, 1}, {5, 6}, {6, 6}, {13, 17}}) {
    const Tensor x(pass.describe("x", size)), y(pass.describe("y", size)), weight(pass.describe("weight", size));
    fill_integers(x, 1), weight.fill(1), y.fill(77);
    pass({{"x", x}, {"weight", weight}, {"y", y}});
    const std::vector<float> in = dense<float>(x), out = dense<float>(y);
    const size_t positions = size_t(size[0] * size[1]);
    for (size_t i = 0; i < out.size(); i++) {
      float sum = 0;
      for (size_t c = 0; c < 16; c++) sum += in[c * positions + i % positions];
      ASSERT_EQ(out[i], sum) << size[0] << "x" << size[1] << " element " << i;
    }
  }
}

// Rows summed as whole vectors of positions end with the last window: what lies behind it may be anything. Of fixed extents too.
TEST(OpenTiles, SumsReadNoElementThatNoWindowReads) {
  const Library library = emitted("unread", {kernel("open", "weight_gradient", "ic=2 oc=3 in=?x? kernel=3 stride=4"),
                                             kernel("fixed", "weight_gradient", "ic=2 oc=3 in=20x110 kernel=3 stride=4")}, "host").open();
  for (const char *name : {"open", "fixed"}) {
    const Pass pass = library.pass(name, "weight_gradient");
    const Shape sizes = std::string(name) == "open" ? Shape{20, 110} : Shape{};  // 27 windows a row, the last of columns 104 to 106
    const Tensor x(pass.describe("x", sizes)), dy(pass.describe("dy", sizes)), dweight(pass.describe("dweight", sizes));
    fill_integers(x, 1), fill_integers(dy, 2);
    pass({{"x", x}, {"dy", dy}, {"dweight", dweight}});
    const std::vector<float> before = dense<float>(dweight);
    for (std::int64_t c = 0; c < 2; c++)
      for (std::int64_t row = 0; row < 20; row++)
        for (std::int64_t column = 0; column < 110; column++)
          if (column > 106 || column % 4 == 3 || row > 18 || row % 4 == 3) x.at({0, c, row, column}) = NAN;
    pass({{"x", x}, {"dy", dy}, {"dweight", dweight}});
    EXPECT_EQ(dense<float>(dweight), before) << name;
  }
}

// The sums over an empty batch are zero, a step leaves the weights, and no data is asked for.
TEST_F(OpenExtents, AnEmptyBatch) {
  const auto without_data = [](auto &t) {
    for (auto &tensor : t)
      if (tensor.extent[0] == 0) tensor.data = nullptr;
  };
  for (const char *pass : {"forward", "input_gradient", "activation_gradient", "weight_gradient", "bias_gradient", "train_step"})
    EXPECT_EQ(message("any", pass, {0, 7, 5}, without_data), "ok") << pass;
  const Pass gradient = library.pass("any", "weight_gradient");
  const Tensor dweight = gradient.make("dweight");
  dweight.fill(77);
  gradient({{"x", Tensor(gradient.describe("x", {0, 7, 5}))}, {"dy", Tensor(gradient.describe("dy", {0, 7, 5}))}, {"dweight", dweight}});
  EXPECT_THAT(dense<float>(dweight), testing::Each(0.f));
  const Pass step = library.pass("any", "train_step");
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (int i = 0; i < step.arguments(); i++) {
    tensors.push_back({step.argument_name(i), Tensor(step.describe(step.argument_name(i), {0, 7, 5}))});
    if (i < step.arguments() - step.outputs()) fill_integers(tensors.back().second, std::uint64_t(i));
    else tensors.back().second.fill(77);
  }
  step.run(tensors);
  const auto values = [&](const char *name) {
    for (auto &[argument, t] : tensors)
      if (argument == name) return dense<float>(t);
    return std::vector<float>();
  };
  EXPECT_EQ(values("weight_out"), values("weight"));
  EXPECT_EQ(values("bias_out"), values("bias"));
  EXPECT_THAT(values("loss"), testing::ElementsAre(0));
}

// At every size the memory that is out at once stays within what `workspace` says of that size.
TEST_F(OpenExtents, WorkspaceFollowsTheSizes) {
  struct Counter {
    std::atomic<std::int64_t> now = 0, peak = 0;
    static void *allocate(void *user, std::size_t bytes) {
      auto &c = *static_cast<Counter *>(user);
      auto *memory = static_cast<char *>(std::aligned_alloc(64, (bytes + 127) / 64 * 64));
      *reinterpret_cast<std::size_t *>(memory) = bytes;
      const std::int64_t out = c.now += std::int64_t(bytes);
      for (std::int64_t peak = c.peak; peak < out && !c.peak.compare_exchange_weak(peak, out);) {}
      return memory + 64;
    }
    static void release(void *user, void *memory) {
      char *start = static_cast<char *>(memory) - 64;
      static_cast<Counter *>(user)->now -= std::int64_t(*reinterpret_cast<std::size_t *>(start));
      std::free(start);
    }
  } counter;
  const convsmith_allocator allocator{Counter::allocate, Counter::release, &counter};
  library.table().set_allocator(&allocator);
  std::int64_t asked = 0;
  const auto hold = [&](const char *kernel_name, const char *name, const Shape &sizes) {
    for (const int threads : {1, 2}) {
      library.set_threads(threads);
      counter.peak = 0;
      ASSERT_EQ(message(kernel_name, name, sizes), "ok") << name;
      EXPECT_LE(counter.peak, std::int64_t(library.pass(kernel_name, name).workspace(threads, sizes))) << name << " " << shape_text(sizes);
      asked += counter.peak;
    }
  };
  for (const Shape &sizes : {Shape{1, 3, 4}, Shape{2, 17, 60}, Shape{3, 200, 33}})
    for (const char *name : {"forward", "input_gradient", "weight_gradient", "train_step"}) hold("any", name, sizes);
  for (const Shape &sizes : {Shape{1, 1, 1, 1}, Shape{2, 3, 1, 5}, Shape{1, 9, 20, 40}}) hold("solid", "forward", sizes);
  library.table().set_allocator(nullptr);
  EXPECT_GT(asked, 0);
}

TEST(OpenExtentsInC, AProgramGivesTheExtents) {
  const Emitted open = open_kernels();
  TestFolder folder;
  std::vector<std::string> command = {"cc", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", consumer_source("any_size.c"),
                                      "-o", folder / "any_size", "-I" + open.folder.string(), open.archive()};
  command.insert(command.end(), c_library.begin(), c_library.end());
  output_of(command);
  EXPECT_EQ(output_of({folder / "any_size"}), "5x6: 0 wrong\n31x17: 0 wrong\n");
}

}  // namespace
}  // namespace convsmith
