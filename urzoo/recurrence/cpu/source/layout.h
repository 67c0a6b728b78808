// How the work is cut: hidden units into vectors, rows and units over the threads, time into chunks.
#pragma once

#include <algorithm>
#include <new>

#include "numbers.h"
#include "arguments.h"
#include "threads.h"

// Input sizes up to this are part of the recurrent product; larger ones are projected in chunks, whose product is
// better shaped.
constexpr int64_t kFusedInput = 16;
constexpr int64_t kChunkRows = 256;

// What sharing costs, in the time that the processor takes to multiply two vectors and add the product.
constexpr double kNearFloats = 1 << 17, kFewRowsNear = 4, kFewRows = 12;
constexpr double kWaking = 30000, kMeeting = 600, kArrival = 300, kFetch = 20;

inline int64_t vectors(int64_t floats) { return (floats + kWidth - 1) / kWidth; }

// The stride of rows of so many floats: whole lines of the cache, so that one never holds what two threads write, and
// one more, because with whole 4 KiB the rows of a tile would come into the same lines of the cache.
inline int64_t row_stride(int64_t floats) { return (floats + kCacheLine - 1) / kCacheLine * kCacheLine + kCacheLine; }

// The vectors of hidden units that threads never part: their factors fill a line of the cache. A line that two threads
// write at every step would go to and fro between them.
inline int64_t together(const Arguments& p) { return kCacheLine * (p.bf16 ? BFloat16::kPack : 1) / kWidth; }
inline int64_t unit_blocks(const Arguments& p) { return (vectors(p.hidden_size) + together(p) - 1) / together(p); }

// A thread's part of the vectors of hidden units.
inline Range share_units(const Arguments& p, int64_t parts, int64_t index) {
  Range blocks = share(unit_blocks(p), parts, index);
  return {blocks.begin * together(p), std::min(blocks.end * together(p), vectors(p.hidden_size))};
}

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
  explicit Layout(const Arguments& arguments) : p(arguments), units(vectors(arguments.hidden_size)) {
    stride = row_stride(units * kWidth);
  }

  // Shares rows and units so that the slowest thread is done soonest, and lays out what the threads meet at. Returns how
  // many of `most` they are.
  int split(Workspace& workspace, int most) {
    const double steps = static_cast<double>(p.time);
    double least = step_cost(1, 1) * steps;
    row_groups = unit_groups = 1;
    for (int parts = 1; parts <= std::min<int64_t>(most, unit_blocks(p)); ++parts) {
      int rows = static_cast<int>(std::min<int64_t>(most / parts, p.batch));
      double cost = step_cost(rows, parts) * steps + kWaking;
      if (cost >= least) continue;
      least = cost;
      row_groups = rows;
      unit_groups = parts;
    }
    threads = row_groups * unit_groups;
    all.set_threads(threads);
    float* memory = workspace.floats(row_groups * static_cast<int64_t>(sizeof(Barrier) / sizeof(float)));
    groups = reinterpret_cast<Barrier*>(memory);
    for (int group = 0; memory != nullptr && group < row_groups; ++group) new (groups + group) Barrier(unit_groups);
    return threads;
  }

  int64_t row_group(int thread) const { return thread / unit_groups; }
  Range rows_of(int thread) const { return share(p.batch, row_groups, row_group(thread)); }
  Range units_of(int thread) const { return share_units(p, unit_groups, thread % unit_groups); }
  int64_t most_rows() const { return (p.batch + row_groups - 1) / row_groups; }
  int64_t most_units() const { return most_units(unit_groups); }
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

  const Arguments& p;
  int64_t units;   // vectors of hidden units
  int64_t stride;  // of a row of the state
  int threads = 1, row_groups = 1, unit_groups = 1;
  Barrier all;
  Barrier* groups;  // of the threads that share rows

 private:
  int64_t most_units(int64_t parts) const {
    return std::min((unit_blocks(p) + parts - 1) / parts * together(p), units);
  }

  // What the slowest thread does at a step, in products of two vectors with a sum.
  double step_cost(int64_t row_parts, int64_t unit_parts) const {
    double rows = static_cast<double>((p.batch + row_parts - 1) / row_parts);
    double weights = static_cast<double>(4 * most_units(unit_parts) * (p.hidden_size + p.input_size));
    // A thread that reads its weights from the second-level cache multiplies a few rows meanwhile, and from beyond more.
    double cost = weights * std::max(rows, weights * kWidth <= kNearFloats ? kFewRowsNear : kFewRows);
    if (unit_parts == 1) return cost;
    // They meet, each after the other, and read what the others wrote of the rows.
    return cost + kMeeting + kArrival * static_cast<double>(unit_parts) +
           kFetch * rows * static_cast<double>(p.hidden_size) / kCacheLine;
  }
};
