// What a pass costs, counted from its problem alone.
//
//   multiply-adds  the products that the formula names, those with a border's elements among them: one for each n,
//                  weight and position that shares it (of x where op=transposed, else of y); train_step: those of
//                  forward and of weight_gradient
//   operations     two a multiply-add; one addition (bias_gradient) or product (activation_gradient) an element of dy
//   bytes          every tensor of the pass once, weights in plain order
//
// An extent known only when run counts as 1. The parser keeps every tensor below 2^63 elements, and 128 bits hold what
// follows from two of them.
#pragma once
#include "generators/pass.h"

namespace convsmith {

using Count = unsigned __int128;

struct Cost {
  Count multiply_adds = 0, operations = 0, bytes_read = 0, bytes_written = 0;
  double bytes() const { return double(bytes_read) + double(bytes_written); }
  double intensity() const { return bytes() > 0 ? double(operations) / bytes() : 0; }
};

Cost cost(const Problem &, PassKind);

/// Throws InternalError past 2^128.
Count times(Count, Count);
/// Elements of a shape, and of its axes after the first two.
Count elements(const Shape &);
Count positions(const Shape &tensor);

}  // namespace convsmith
