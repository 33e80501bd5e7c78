// A hand-written kernel library of plain loops: what an emitted one looks like, for tests without a compiler.
#pragma once
#include "convsmith/abi.h"

/// Kernels, all channels last:
/// edge      in=6x8 kernel=1x2
/// edge_bias in=6x8 kernel=1x2 bias=1
/// packed    n=2 ic=4 oc=6 groups=2 in=5x7 kernel=3x2 stride=2x1 pad=1x0 bias=1 activation=relu; forward takes the
/// weight
///           as [KH, KW, IC/groups, OC], the input gradient in another memory order, both through pack passes
/// batch     n=? ic=2 oc=3 in=5x4 kernel=3x2
/// constant  in=6x8 kernel=1x2 with the weight [1, -1] in the code; forward only
extern "C" const convsmith_library *plain_library(void);
