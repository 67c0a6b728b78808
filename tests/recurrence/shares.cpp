// What each thread has of the work, for test_cpu_threads.py.
#include "layout.h"

extern "C" int64_t vector_width() { return kWidth; }
extern "C" int64_t stride_of(int64_t floats) { return row_stride(floats); }
extern "C" int64_t barriers_apart() { return alignof(Barrier) == 64 ? sizeof(Barrier) : 0; }

// Rows and hidden units of each thread, [begin, end), into `shares`. Returns how many threads have some.
extern "C" int share_out(int64_t batch, int64_t time, int64_t input, int64_t hidden, int64_t bf16, int threads,
                         int64_t (*shares)[4]) {
  Arguments arguments{};
  arguments.batch = batch;
  arguments.time = time;
  arguments.input_size = input;
  arguments.hidden_size = hidden;
  arguments.bf16 = bf16;
  Layout layout(arguments);
  Workspace measured;
  int used = layout.split(measured, threads);
  for (int thread = 0; thread < used; ++thread) {
    Range rows = layout.rows_of(thread), units = layout.units_of(thread);
    int64_t here[] = {rows.begin, rows.end, units.begin * kWidth, std::min(units.end * kWidth, hidden)};
    std::copy(here, here + 4, shares[thread]);
  }
  return used;
}
