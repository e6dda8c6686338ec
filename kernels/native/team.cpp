#include "team.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bestiary {
namespace {

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// How long a helper looks for work before it sleeps: about as long as Python takes from one call to the next.
constexpr int LOOKS = 4000;
constexpr int MOST = 256;

// The step at hand.  `ticket` holds its number in the upper half and its next piece in the lower one: who takes a piece
// by exchanging the whole has seen the step that the piece belongs to.
struct Team {
  std::atomic<uint64_t> ticket{0};
  std::atomic<int64_t> pieces{0}, done{0};
  std::atomic<void (*)(const void*, int64_t)> work{nullptr};
  std::atomic<const void*> arguments{nullptr};

  std::mutex caller;  // held by who has the helpers
  std::atomic<int> helpers{0}, wanted{0}, asleep{0};
  std::mutex sleep;
  std::condition_variable wake;

  // Takes one piece of the step at hand and does it; false where there is none.
  bool help() {
    uint64_t seen = ticket.load(std::memory_order_acquire);
    const auto f = work.load(std::memory_order_acquire);
    const void* a = arguments.load(std::memory_order_acquire);
    const int64_t end = pieces.load(std::memory_order_acquire);
    const auto piece = static_cast<int64_t>(seen & 0xffffffffu);
    if (piece >= end) return false;
    if (!ticket.compare_exchange_strong(seen, seen + 1, std::memory_order_acq_rel)) return true;
    f(a, piece);
    done.fetch_add(1, std::memory_order_release);
    return true;
  }

  void begin(const Step& step, const void* given, int64_t count) {
    // No piece can be taken while this is written; and who has read any of it can no longer exchange an older ticket.
    const uint64_t number = (ticket.load(std::memory_order_relaxed) >> 32) + 1;
    ticket.store(number << 32 | 0xffffffffu, std::memory_order_release);
    done.store(0, std::memory_order_relaxed);
    work.store(step.run, std::memory_order_release);
    arguments.store(given, std::memory_order_release);
    pieces.store(count, std::memory_order_release);
    ticket.store((number + 1) << 32, std::memory_order_release);
  }

  void finish(int64_t count) {
    while (help()) {
    }
    while (done.load(std::memory_order_acquire) < count) pause();
  }

  void live(int number) {
    int looks = 0;
    for (;;) {
      if (number < wanted.load(std::memory_order_relaxed) && help()) {
        looks = 0;
        continue;
      }
      pause();
      if (++looks < LOOKS) continue;
      std::unique_lock<std::mutex> lock(sleep);
      asleep.fetch_add(1);
      wake.wait(lock, [&] { return number < wanted.load(); });
      asleep.fetch_sub(1);
      looks = 0;
    }
  }

  void want(int count) {
    while (helpers.load() < count) {
      const int number = helpers.load();
      try {
        std::thread([this, number] { live(number); }).detach();
      } catch (...) {
        break;  // no more threads are to be had: the caller does their work
      }
      helpers.store(number + 1);
    }
    {
      std::lock_guard<std::mutex> lock(sleep);
      wanted.store(count);
    }
    if (asleep.load()) wake.notify_all();
  }
};

std::atomic<Team*> team{nullptr};

void forget() {
  // In a child only the thread that forked lives on; what the parent's helpers held stays held.  It is left alone.
  team.store(nullptr);
}

Team& current() {
  Team* found = team.load(std::memory_order_acquire);
  if (found) return *found;
  static const int registered = pthread_atfork(nullptr, nullptr, forget);
  (void)registered;
  // Never destroyed: helpers may look at it until the process ends.
  Team* made = new Team;
  if (team.compare_exchange_strong(found, made)) return *made;
  delete made;
  return *found;
}

void run_alone(Operations operations, const Call* calls, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    const Operation& operation = operations[calls[i].operation];
    for (int s = 0; s < operation.count; s++) {
      const int64_t pieces = operation.steps[s].pieces(calls[i].arguments);
      for (int64_t piece = 0; piece < pieces; piece++) operation.steps[s].run(calls[i].arguments, piece);
    }
  }
}

}  // namespace

void run(Operations operations, const Call* calls, int64_t count, int threads) {
  if (threads <= 1) return run_alone(operations, calls, count);
  Team& all = current();
  std::unique_lock<std::mutex> mine(all.caller, std::try_to_lock);
  if (!mine.owns_lock()) return run_alone(operations, calls, count);
  all.want((threads < MOST ? threads : MOST) - 1);
  for (int64_t i = 0; i < count; i++) {
    const Operation& operation = operations[calls[i].operation];
    for (int s = 0; s < operation.count; s++) {
      const Step& step = operation.steps[s];
      const int64_t pieces = step.pieces(calls[i].arguments);
      if (pieces == 1) {
        step.run(calls[i].arguments, 0);
      } else if (pieces > 1) {
        all.begin(step, calls[i].arguments, pieces);
        all.finish(pieces);
      }
    }
  }
  all.wanted.store(0);
}

}  // namespace bestiary
