// How a problem is cut: hidden units into vectors, rows and units over the threads, time into chunks.
#pragma once

#include <algorithm>

#include "problem.h"
#include "simd.h"
#include "threads.h"

// Input sizes up to this are part of the recurrent product; larger ones are projected in chunks, whose product is
// better shaped.
constexpr int64_t kFusedInput = 16;
constexpr int64_t kChunkRows = 256;
constexpr int64_t kMostGroups = 256;
constexpr int64_t kFewRows = 12;
constexpr int64_t kLongStep = 60000;

inline int64_t vectors(int64_t floats) { return (floats + kWidth - 1) / kWidth; }

// One vector of units at one step.
struct UnitStep {
  int64_t step, unit;
};

// Steps [first, last) of the rows of one row group, for a pass that goes through time in chunks. Its lines are its
// steps times those rows.
struct Lines {
  int64_t first, last;
  Range rows;     // of the batch
  int64_t group;  // of the rows
  int64_t line(int64_t step, int64_t row) const { return (step - first) * rows.size() + row; }
  int64_t used() const { return (last - first) * rows.size(); }
  int64_t step_of(int64_t line) const { return first + line / rows.size(); }
  int64_t row_of(int64_t line) const { return rows.begin + line % rows.size(); }
  // Where a thread that has `units` is next, going back in time.
  UnitStep after(int64_t step, int64_t unit, Range units) const {
    return unit + 1 < units.end ? UnitStep{step, unit + 1} : UnitStep{std::max(step - 1, first), units.begin};
  }
};

struct Layout {
  explicit Layout(const Problem& problem) : p(problem), units(vectors(problem.hidden_size)) {
    // A row's stride of whole 4 KiB would put the rows of a tile into the same lines of the cache.
    stride = units * kWidth + 16;
  }

  void split(int threads_used) {
    threads = threads_used;
    row_groups = static_cast<int>(std::min<int64_t>(threads, p.batch));
    unit_groups = 1;
    // With few rows to a thread each of them would read all the weights for little work: better to share the rows,
    // each thread with its part of the weights, if a step is long beside a barrier.
    if (p.batch < kFewRows * threads && p.batch * p.hidden_size * p.hidden_size >= kLongStep) {
      // More threads than there are vectors of units share the rows out again.
      unit_groups = static_cast<int>(std::min<int64_t>(threads, units));
      row_groups = static_cast<int>(std::min<int64_t>(threads / unit_groups, p.batch));
    }
    all.set_threads(threads);
    for (int group = 0; group < row_groups; ++group) groups[group].set_threads(unit_groups);
  }

  int64_t row_group(int thread) const { return thread / unit_groups; }
  Range rows_of(int thread) const { return share(p.batch, row_groups, row_group(thread)); }
  Range units_of(int thread) const { return share(units, unit_groups, thread % unit_groups); }
  bool idle(int thread) const { return thread >= row_groups * unit_groups; }
  int64_t most_rows() const { return (p.batch + row_groups - 1) / row_groups; }
  int64_t most_units() const { return (units + unit_groups - 1) / unit_groups; }
  int64_t chunk_steps() const {
    return std::min(p.time, p.segment != 0 ? p.segment : std::max<int64_t>(1, kChunkRows / most_rows()));
  }
  int64_t chunk_rows() const { return chunk_steps() * most_rows(); }
  // Which of `count` parts of the weights comes `index`-th at a step. Every other step goes through them backwards, for
  // those that were read last are still in the caches.
  int64_t part_of(int64_t step, int64_t index, int64_t count) const { return step % 2 == 0 ? index : count - 1 - index; }
  // The part after it; after the last one that one again, with which the next step begins.
  int64_t part_after(int64_t step, int64_t index, int64_t count) const {
    return part_of(step, std::min(index + 1, count - 1), count);
  }
  int64_t time_of(int64_t step) const { return p.reverse ? p.time - 1 - step : step; }
  bool real(int64_t row, int64_t time) const { return p.mask == nullptr || p.mask[row * p.time + time] != 0; }
  int64_t units_left(int64_t unit) const { return p.hidden_size - unit * kWidth; }

  const Problem& p;
  int64_t units;   // vectors of hidden units
  int64_t stride;  // of a row of the state
  int threads = 1, row_groups = 1, unit_groups = 1;
  Barrier all;
  Barrier groups[kMostGroups];
};
