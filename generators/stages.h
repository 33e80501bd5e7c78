// What a schedule sees of a pass, and all it sees. Every pass is one contraction of two operands,
//
//     sum.acc(free...) += vec(free[0], ...) * bcast(...)      over sum.red
//     out(free...)      = an epilogue of the sum, or of that of its residue
//
// or, without sums, one pure definition. Axes here and in every Func are innermost first: W, then H, then D.
#pragma once
#include "Halide.h"
#include "pass.h"
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace convsmith {

/// The Var of axis i: "k0", "k1", …
inline Halide::Var numbered(std::string stem, int i) { return Halide::Var(stem += std::to_string(i)); }

/// The extents that may be known only when run: n, and the input's and the output's, one an axis in the order D, H, W.
enum Size { size_n = 0, size_in = 1, size_out = 4, size_count = 7 };

struct Workload {
  Problem problem;
  PassKind pass;
  Halide::Target target;
  int panel = 0;      // weights arrive in panels of this many vector-axis channels (0: plain)
  int quad = 0;       // 4: of 8-bit weights four summed channels lie beside each other for one vector-axis channel
  bool trim = false;  // leave out the rows of taps that fall in a border of zeros (not along W)
  // The operand with a border is copied by whole rows: what is inside, then both ends. As one definition the ends would be vectors of
  // clamped loads, made lane by lane. `fill_both`: so is the other one.
  bool fill = false, fill_both = false;
  bool fill_first = false, trim_first = false;  // `fill` and `trim` of a training step's forward pass
  int panel_first = 0;                          // `panel`, of weights that it packs itself
  int few_first = 0;                            // and `few`
  // A weight gradient's vectors are so many neighbours in space, of both operands. Where both are filled its rows are whole vectors of
  // them: what lies behind their ends is zero.
  int position_lanes = 0;
  // Where their number is known only when run (0: no): a weight gradient of up to so many positions, batch included, is a sum of its own; and so is
  // a result of one position of fewer images.
  int few = 0;
  bool offset = false;  // u8 is read as s8, 128 less, for machines that multiply equal signs only
  std::vector<Halide::Expr> sizes = {};  // by Size; needed for those that are `?`
};

struct Axis {
  Halide::Var var;
  int extent;
  int period = 1;  // out's element v comes from the sum number v % period, at v / period
  bool overrun = false;  // the operands may be read past its end: they have an exterior there
  bool known = true;  // else `extent` is a stand-in to plan with
  Halide::Expr size = {};  // the extent where it is not known
  bool images = false;  // along the batch, of a pass that gathers
  int least = 1;  // of `size`, where Stages::few is not taken
  int repeat = 1;  // weights along it repeat after so many elements, or lie in panels of as many: vectors of them are loaded where tiles start at such
};

struct Sum {                // one a residue of a strided input gradient of few, else one
  Halide::Func acc;         // update(0) is the hot loop
  Halide::RDom red;         // innermost first
  std::vector<int> extent;  // of red
  bool known = true;        // else some of them are stand-ins to plan with
};

struct Stages {
  Halide::Func out;
  std::vector<Axis> free;  // the best register-tile axes first; free[0] is the vector axis
  int dense = 0;           // the axis of free that is contiguous in out, where that is worth a vector store
  std::vector<Sum> sums;
  // The operands. Dimension 0 of each is the one to make contiguous where it is staged.
  Halide::Func vec;     // moves with free[0]: loaded as vectors
  Halide::Func bcast;   // does not, but where `paired`: loaded as scalars
  Halide::Func padded;  // the one of the two that has a border; undefined where neither has
  Halide::Func lines;   // what the rows of padded are copied from, channels first, where they are made across whole vectors of these
  bool padded_dense = false;  // its dimension 0 is contiguous in place too
  // The same contraction once more, which `out`, that is this one's too, takes where positions or images are few.
  std::shared_ptr<Stages> few;
  Halide::Expr when_few;
  // What is computed before, whole: other sums, which are scheduled as such; tensors made of their result element by element; sums along
  // rows of these. Of a training step the forward pass, its errors as far as it does not end in them, and what bias and loss need.
  std::shared_ptr<Stages> first;
  std::vector<Halide::Func> elements, row_sums;
  // Small Funcs computed whole; none of them is in the hot loop.
  std::vector<Halide::Func> before;   // read by the sums or by out
  std::vector<Halide::Func> after;    // read `out`, each the ones before it; the last is the result in out's place
  std::vector<Halide::Func> results;  // further results beside out, in the order of the outputs
  bool paired = false;  // bcast moves with free[0] too: depthwise, and weights of each position's own
  bool by_fours = false;  // 8-bit operands that may come in fours of the summed channels (Workload::quad)
  // The sums run over positions and batch: both operands are walked along them, so that a long sum is best cut into
  // blocks that stay in cache.
  bool over_positions = false;
  // Where over_positions: the dimensions of vec and of bcast that the innermost axis of the sum walks along.
  int vec_position = 0, bcast_position = 0;

  Halide::Func result() const { return after.empty() ? out : after.back(); }
};

/// One buffer of the emitted function: what a caller sees, and how the Func's dimensions map to it.
struct BufferSpec {
  struct Dim {
    int axis;          // logical axis that this dimension walks along, or the innermost of several that it walks as one
    int extent;        // its extent; that of its axis, known only when run, where run_time
    int multiple = 1;  // logical elements from one index to the next
    int interleaved = 0;  // of a row whose elements it walks along: how many channels each position has
  };
  std::string name;
  Shape shape;              // logical axes, outermost first: [N, C, *spatial], [OC, IC/groups, *kernel], …
  std::vector<int> memory;  // logical axes from innermost to outermost in memory
  std::vector<Dim> dims;    // as the Func indexes them, innermost first
  int fixed = 0;            // how many axes of `memory` must be dense; the strides of the others are the caller's
  Halide::Type type = Halide::Float(32);
  std::vector<int> sizes = {};  // the Size of each logical axis, -1 for those that never change; empty: all of them
};

struct Operator {
  const char *name;
  /// Inputs in order, then the outputs, the result's first.
  std::vector<BufferSpec> (*buffers)(const Workload &);
  Stages (*build)(const Workload &, const std::vector<Halide::Func> &inputs);
};

extern const Operator correlation, bias_gradient, activation_gradient, pack_weight, train_step;

/// How many positions of a row of x are taken as one whose channels are all of theirs, so that these fill vectors: a patch's where patches of
/// few channels lie side by side, else 1.
int folded_positions(const Problem &);

/// The operator that carries a workload's pass.
const Operator &find_operator(const Workload &);
/// Of the buffers, how many at the end are written.
int output_count(const Workload &);
/// The Sizes that a workload's function takes as numbers: those of its buffers that are known only when run, in their
/// order, less the output's that follow from the input's.
std::vector<int> run_time_sizes(const Workload &);
/// Sets Workload::sizes from the numbers, and those that follow from them.
void set_sizes(Workload &, const std::function<Halide::Expr(int size)> &number);
/// The Sizes that a problem leaves open, for a caller to give: n and the input's, as far as they are `?`.
std::vector<int> open_sizes(const Problem &);
/// "n", "in_h", "out_w"
std::string size_name(const Problem &, int size);

}  // namespace convsmith
