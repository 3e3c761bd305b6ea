// Threads, warps, blocks and grids for kernels compiled against cuda_on_cpu.h.
//
// Blocks run one after another. The threads of a block are fibers: each has a stack of its own, and one of them runs at a
// time, until it has to wait for others or is done; then the scheduler takes the next in order. So every run of a kernel
// is like every other, and a switch costs nanoseconds. With EMULATOR_THREADS each is a thread of the operating system instead:
// slow, in no order, and what ThreadSanitizer needs to find a race.
#if defined(__APPLE__)
#define _XOPEN_SOURCE 700  // for ucontext
#define _DARWIN_C_SOURCE
#endif
#include "cuda_on_cpu.h"

#include <stdarg.h>
#include <utility>
#ifdef EMULATOR_THREADS
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(CHECK_ADDRESS)
#include <sanitizer/common_interface_defs.h>
#define CHECK_ADDRESS 1
#endif
#ifdef CHECK_THREAD
extern "C" {
void AnnotateIgnoreSyncBegin(const char* file, int line);
void AnnotateIgnoreSyncEnd(const char* file, int line);
void __tsan_acquire(void* tag);
void __tsan_release(void* tag);
}
#endif

#ifdef EMULATOR_THREADS
__thread uint3 threadIdx;
#else
uint3 threadIdx;
#endif
uint3 blockIdx;
dim3 blockDim, gridDim;

namespace {

constexpr int most_threads = 1024;
struct Fiber;
struct Abandoned {};  // thrown through a kernel whose launch has failed, so that its thread ends

enum class State { fresh, ready, at_barrier, at_warp, gone };
constexpr int votes = -1;  // in place of the lane asked for

struct Thread {
    int index;  // in its block,
    uint3 at;   // which as threadIdx is this
    State state;
    int line;             // where it waits
    unsigned mask;        // for which lanes it waits,
    int from_lane;        // whose value it wants,
    uint64_t value;       // what it has to offer,
    uint64_t result;      // and what it got
    Fiber* fiber;
    bool fenced;
#ifdef EMULATOR_THREADS
    std::condition_variable woken;
    char arrived, released;  // their addresses stand for "came before" in ThreadSanitizer's books
#endif
};

Thread threads[most_threads];
int order[most_threads];   // who comes first
int size;                  // threads in the block
int ready, live, waiting;  // of these: neither waiting nor gone; not gone; waiting at the barrier
struct { unsigned waiting, here; } warps[most_threads / 32];  // a bit a lane

bool failed;
char message[1024];

#ifdef EMULATOR_THREADS
__thread Thread* self;
std::mutex mutex;
#else
Thread* self;
#endif

// ---- The rules of waiting: who waits for whom, and when it is over ---------------------------------------------------

void wake(Thread& thread) {
    thread.state = State::ready;
    ++ready;
#ifdef EMULATOR_THREADS
    thread.woken.notify_one();
#endif
}

bool waits(const Thread& thread) { return thread.state == State::at_barrier || thread.state == State::at_warp; }

// The first failure counts. All who wait are woken, and find out.
void fail(const char* format, ...) {
    if (failed) return;
    failed = true;
    int length = snprintf(message, sizeof message, "block (%u, %u, %u): ", blockIdx.x, blockIdx.y, blockIdx.z);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message + length, sizeof message - size_t(length), format, arguments);
    va_end(arguments);
    waiting = 0;
    for (auto& warp : warps) warp.waiting = 0;
    for (int i = 0; i < size; ++i)
        if (waits(threads[i])) wake(threads[i]);
}

void fail_with_all_who_wait(const char* what) {
    char list[768] = "";
    bool told[most_threads] = {};
    for (int i = 0, length = 0; i < size && length < int(sizeof list) - 160; ++i) {
        if (told[i] || !waits(threads[i])) continue;
        int alike = 0;
        for (int j = i; j < size; ++j)
            if (threads[j].state == threads[i].state && threads[j].line == threads[i].line &&
                threads[j].mask == threads[i].mask)
                told[j] = true, ++alike;
        uint3 at = threads[i].at;
        length += snprintf(list + length, sizeof list - size_t(length), "%s thread (%u, %u, %u)", length ? ";" : "", at.x, at.y, at.z);
        if (alike > 1) length += snprintf(list + length, sizeof list - size_t(length), " and %d more", alike - 1);
        length += snprintf(list + length, sizeof list - size_t(length), " at line %d", threads[i].line);
        if (threads[i].state == State::at_warp)
            length += snprintf(list + length, sizeof list - size_t(length), " (for lanes %#x)", threads[i].mask);
    }
    fail("%s:%s", what, list);
}

// `first` to `last` have all arrived: what each did before comes before what each does after.
void order_memory(int first, int last, unsigned mask = ~0u) {
#ifdef CHECK_THREAD
    auto among = [&](int i) { return i < size && (mask >> (i % 32) & 1u); };
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);  // of Alone, below
    for (int i = first; i < last; ++i)
        if (among(i)) __tsan_acquire(&threads[i].arrived);
    for (int i = first; i < last; ++i)
        if (among(i)) __tsan_release(&threads[i].released);
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
#endif
    (void)first, (void)last, (void)mask;
}

void try_to_open_barrier() {
    if (!waiting || waiting < live) return;
    int line = 0;
    for (int i = 0; i < size; ++i) {
        if (threads[i].state != State::at_barrier) continue;
        if (line && threads[i].line != line)
            return fail_with_all_who_wait("a barrier is for all threads of a block, but they wait at different ones");
        line = threads[i].line;
    }
    waiting = 0;
    order_memory(0, size);
    for (int i = 0; i < size; ++i)
        if (threads[i].state == State::at_barrier) wake(threads[i]);
}

void try_to_open_warp(int number, unsigned mask) {
    auto& warp = warps[number];
    Thread* lanes = threads + 32 * number;
    unsigned group = mask & warp.here;
    if (!group || (group & ~warp.waiting)) return;
    for (int i = 0; i < 32; ++i)
        if ((group >> i & 1u) && lanes[i].mask != mask) return;
    unsigned ballot = 0;
    for (int i = 0; i < 32; ++i)
        if ((group >> i & 1u) && lanes[i].value) ballot |= 1u << i;
    order_memory(32 * number, 32 * number + 32, mask);
    warp.waiting &= ~group;
    for (int i = 0; i < 32; ++i) {
        if (!(group >> i & 1u)) continue;
        int from = lanes[i].from_lane;
        lanes[i].result = from == votes ? ballot : (group >> from & 1u) ? lanes[from].value : ~0ull;
        wake(lanes[i]);
    }
}

// Let go of all whom this thread kept waiting, and see that somebody can still run.
void try_to_open(int number) {
    try_to_open_barrier();
    for (unsigned left = warps[number].waiting; left; left &= left - 1)
        try_to_open_warp(number, threads[32 * number + __builtin_ctz(left)].mask);
    if (!ready && live) fail_with_all_who_wait("deadlock, each thread waits for others");
}

#ifdef EMULATOR_THREADS
// What the mutex orders is not the kernel's doing, so ThreadSanitizer shall not see it; only barriers, as told to it.
struct Alone {
    Alone() {
#ifdef CHECK_THREAD
        __tsan_release(&self->arrived);
        AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
#endif
        mutex.lock();
    }
    ~Alone() {
        mutex.unlock();
#ifdef CHECK_THREAD
        AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
#endif
    }
};
void sleep() {
    std::unique_lock<std::mutex> lock(mutex, std::adopt_lock);
    self->woken.wait(lock, [] { return self->state == State::ready; });
    lock.release();
}
#else
struct Alone {
    Alone() {}
    ~Alone() {}
};
void switch_to_scheduler();
void sleep() {  // even the last to come waits for its turn, so that all go on in order
    do switch_to_scheduler();
    while (self->state != State::ready);
}
#endif

void wait(State how, int line, unsigned mask) {
    bool stop;
    {
        Alone alone;
        if (!failed) {
            int number = self->index / 32;
            self->state = how;
            self->line = line;
            self->mask = mask;
            --ready;
            if (how == State::at_barrier) ++waiting;
            else warps[number].waiting |= 1u << self->index % 32;
            if (how == State::at_barrier) try_to_open_barrier();
            else try_to_open_warp(number, mask);
            if (!ready) try_to_open(number);
            sleep();
        }
        stop = failed;
    }
#ifdef CHECK_THREAD
    __tsan_acquire(&self->released);
#endif
    if (stop) throw Abandoned();
}

void run_thread(Thread& thread, void (*kernel)(const void*), const void* arguments) {
    self = &thread;
    threadIdx = thread.at;
    try {
        kernel(arguments);
    } catch (const Abandoned&) {
    }
    Alone alone;
    int number = thread.index / 32;
    thread.state = State::gone;
    --ready, --live;
    warps[number].here &= ~(1u << thread.index % 32);
    if (waiting || warps[number].waiting || !ready) try_to_open(number);
}

void prepare_block(int threads_in_block) {
    size = ready = live = threads_in_block;
    waiting = 0;
    for (int i = 0; i < size; ++i) {
        threads[i].state = State::fresh;
        threads[i].fenced = false;
        warps[i / 32] = {0, ~0u};
    }
    if (size % 32) warps[size / 32].here = (1u << size % 32) - 1;
}

uint64_t dice;
uint64_t draw(uint64_t below) {  // splitmix64
    uint64_t z = dice += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % below;
}
int schedule;

#ifdef EMULATOR_THREADS
// ---- A block of real threads ---------------------------------------------------------------------------------------
void run_block(void (*kernel)(const void*), const void* arguments) {
    static std::thread workers[most_threads];
    int started = 0;
    for (int i = 0; i < size; ++i) threads[i].state = State::ready;
    try {
        for (; started < size; ++started)
            workers[started] = std::thread(run_thread, std::ref(threads[started]), kernel, arguments);
    } catch (const std::system_error& error) {
        std::lock_guard<std::mutex> lock(mutex);
        fail("thread %d of %d could not be started: %s", started, size, error.what());
        for (int i = started; i < size; ++i) threads[i].state = State::gone, --ready, --live;
    }
    while (started) workers[--started].join();
}
#else
// ---- A block of fibers ---------------------------------------------------------------------------------------------
// To switch is to save the registers that a called function must keep, to put the stack pointer elsewhere, and to return
// to where that stack came from. Any call may clobber the other registers, so the compiler has saved them already.
#if defined(__x86_64__) && !defined(_WIN32) && !defined(USE_UCONTEXT)
struct Context { void* stack_pointer; };
#ifdef __APPLE__
#define SYMBOL(name) "_" name
#else
#define SYMBOL(name) name
#endif
extern "C" __attribute__((visibility("hidden"))) void emulator_switch(void** save, void* load);
asm(".text\n" SYMBOL("emulator_switch") ":\n"
    "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
    "movq %rsp, (%rdi)\n"
    "movq %rsi, %rsp\n"
    "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n"
    "popq %rax\n jmp *%rax\n");
void switch_context(Context& from, Context& to) { emulator_switch(&from.stack_pointer, to.stack_pointer); }
void make_context(Context& context, char* bottom, size_t bytes, void (*start)()) {
    void** top = reinterpret_cast<void**>(bottom + bytes);  // a multiple of 16
    *--top = nullptr;                                       // where `start` would return to
    *--top = reinterpret_cast<void*>(start);                // where the switch returns to
    context.stack_pointer = top - 6;                        // six registers, whatever is in them
    memset(context.stack_pointer, 0, 6 * sizeof(void*));
}
#else
#include <ucontext.h>
using Context = ucontext_t;
void switch_context(Context& from, Context& to) { swapcontext(&from, &to); }
void make_context(Context& context, char* bottom, size_t bytes, void (*start)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = bottom;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, start, 0);
}
#endif

struct Fiber {
    Context context;
    char* bottom;  // of its stack
    size_t bytes;
    void* fake;  // AddressSanitizer's
    Thread* thread;
};

constexpr size_t stack_bytes = 256 * 1024;
Fiber scheduler, fibers[most_threads];
Fiber* idle[most_threads];
int made, idle_count;
int turn;  // whose it is: a place in `order`
struct { void (*kernel)(const void*); const void* arguments; } task;

void switch_fiber(Fiber& from, Fiber& to, bool for_ever = false) {
#ifdef CHECK_ADDRESS
    const void* bottom;
    size_t bytes;
    __sanitizer_start_switch_fiber(for_ever ? nullptr : &from.fake, to.bottom, to.bytes);
#endif
    (void)for_ever;
    switch_context(from.context, to.context);
#ifdef CHECK_ADDRESS
    __sanitizer_finish_switch_fiber(from.fake, &bottom, &bytes);
    if (&from != &scheduler) scheduler.bottom = static_cast<char*>(const_cast<void*>(bottom)), scheduler.bytes = bytes;
#endif
}

void switch_to_scheduler() {
    Thread* me = self;
    switch_fiber(*me->fiber, scheduler);
    self = me;
    threadIdx = me->at;
}

// A fiber runs a thread to its end and then, if it is the turn of one that has not begun, that one too: so a kernel
// without barriers runs on one fiber, as a plain loop.
void live_on_fiber() {
    Fiber& fiber = *self->fiber;
#ifdef CHECK_ADDRESS
    const void* bottom;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &scheduler.bytes);
    scheduler.bottom = static_cast<char*>(const_cast<void*>(bottom));
#endif
    for (;;) {
        run_thread(*self, task.kernel, task.arguments);
        if (failed || turn + 1 == size || threads[order[turn + 1]].state != State::fresh) break;
        self = &threads[order[++turn]];
        self->state = State::ready;
        self->fiber = &fiber;
    }
    idle[idle_count++] = &fiber;
    switch_fiber(fiber, scheduler, true);
}

Fiber* take_fiber() {
    if (!idle_count) {  // make one, on pages of its own, below which there is one that must not be touched
        size_t page = size_t(sysconf(_SC_PAGESIZE));
        void* memory = mmap(nullptr, stack_bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
        if (memory == MAP_FAILED) return nullptr;
        mprotect(memory, page, PROT_NONE);
        Fiber& fiber = fibers[made];
        fiber.bottom = static_cast<char*>(memory) + page;
        // Stacks that began at the same place of their pages would all compete for the same lines of the cache.
        fiber.bytes = stack_bytes - size_t(made) * 320 % 16384;
        idle[idle_count++] = &fibers[made++];
    }
    Fiber* fiber = idle[--idle_count];
    make_context(fiber->context, fiber->bottom, fiber->bytes, live_on_fiber);
    return fiber;
}

void run_block(void (*kernel)(const void*), const void* arguments) {
    task = {kernel, arguments};
    while (live) {
        for (turn = 0; turn < size; ++turn) {
            Thread& thread = threads[order[turn]];
            if (thread.state == State::fresh) {
                thread.fiber = failed ? nullptr : take_fiber();
                if (!thread.fiber) fail("no memory for the stacks of its threads");
                if (failed) {  // those that have not begun never will
                    thread.state = State::gone;
                    --ready, --live;
                    continue;
                }
                thread.state = State::ready;
            }
            if (thread.state != State::ready) continue;
            self = &thread;
            switch_fiber(scheduler, *thread.fiber);
        }
    }
}

void give_memory_back() {  // of all but a few stacks; their addresses stay ours
    for (int i = 64; i < made; ++i) madvise(fibers[i].bottom, stack_bytes, MADV_DONTNEED);
}
#endif

}  // namespace

namespace emulator {

void barrier(int line) { wait(State::at_barrier, line, 0); }

uint64_t exchange(unsigned mask, uint64_t value, int from_lane, int line) {
    if (!(mask >> lane() & 1u)) {
        {
            Alone alone;
            fail("lane %d takes part at line %d with the mask %#x, in which it is not", lane(), line, mask);
        }
        throw Abandoned();
    }
    self->value = value;
    self->from_lane = from_lane;
    wait(State::at_warp, line, mask);
    return self->result;
}

unsigned ballot(unsigned mask, bool vote, int line) { return unsigned(exchange(mask, vote, votes, line)); }
int lane() { return self->index % 32; }
void fence() { self->fenced = true; }
bool fenced() { return self->fenced; }

void yield() {
#ifdef EMULATOR_THREADS
    std::this_thread::yield();
#else
    if (failed) throw Abandoned();
    if (schedule == 1 || (schedule == 2 && draw(2))) switch_to_scheduler();
#endif
}

const char* run(const Launch& launch, void (*kernel)(const void*), const void* arguments) {
    gridDim = {launch.grid[0], launch.grid[1], launch.grid[2]};
    blockDim = {launch.block[0], launch.block[1], launch.block[2]};
    int threads_in_block = int(blockDim.x * blockDim.y * blockDim.z);
    schedule = launch.schedule;
    dice = launch.seed;
    failed = false;
#ifdef EMULATOR_THREADS
    // A second copy of this library has its own __shared__ variables, so its blocks can run beside ours.
    const char* twin_failed = nullptr;
    std::thread twin;
    if (launch.twin) {
        twin = std::thread([&] {
            Launch other = launch;
            other.twin = nullptr;
            other.first = 1;
            twin_failed = launch.twin(other);
        });
    }
#endif
    for (int i = 0; i < threads_in_block; ++i) {
        unsigned n = unsigned(i), x = blockDim.x, y = blockDim.y;
        threads[i].index = order[i] = i;
        threads[i].at = {n % x, n / x % y, n / x / y};
    }
    uint64_t blocks = uint64_t(gridDim.x) * gridDim.y * gridDim.z;
    for (uint64_t i = launch.first; i < blocks && !failed; i += launch.step) {
        blockIdx = {unsigned(i % gridDim.x), unsigned(i / gridDim.x % gridDim.y), unsigned(i / gridDim.x / gridDim.y)};
        if (schedule == 2)
            for (int j = threads_in_block; j > 1; --j) std::swap(order[j - 1], order[draw(uint64_t(j))]);
        prepare_block(threads_in_block);
        run_block(kernel, arguments);
    }
#ifdef EMULATOR_THREADS
    if (twin.joinable()) twin.join();
    if (!failed && twin_failed) return twin_failed;
#else
    give_memory_back();
#endif
    return failed ? message : nullptr;
}

}  // namespace emulator
