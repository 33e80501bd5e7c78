// The schedule that docs/adding-a-schedule.md walks through.
#pragma once
#include "schedules/schedule.h"

namespace convsmith {

extern const Schedule example_rows;

}  // namespace convsmith
