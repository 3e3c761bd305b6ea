// The sampler and its gradients as CUDA kernels. Chapter 4 derives them.
//
// One source, compiled for each case; cuda.py defines
//   IMAGE    what an image holds: float, double, __half or __nv_bfloat16; HALF for the last two
//   DIMS     2 for images, 3 for volumes
//   TAPS     pixels read along an axis: 1 (nearest), 2 (bilinear) or 4 (bicubic)
//   INDEX    int, or long long where an array has 2^31 elements or more
//   THREADS  most threads of a block
//   PIXELS   output pixels a thread, in as many rows: while one pixel's reads are on their way, the next one's start
//
// A block works on a tile of one image's output. Its threads are (lane, column, row): neighbouring lanes take
// neighbouring channels where these are neighbours in memory (channels last); else there is one lane, and neighbouring
// threads take neighbouring columns. Either way a warp reads and writes memory side by side.
//
// Positions are in float64, from a base for each row; weights and sums are in A: double for double, else float.
// Axes count x, y, z. A pixel of the output is (j, i, k): column, row, slice.

#ifdef HALF
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#ifndef YIELD  // where the emulator may let another thread go first
#define YIELD()
#endif

enum Padding { OUTSIDE, BORDER, REFLECT, WRAP, MIRROR };  // OUTSIDE: zeros, or a fill value

using T = IMAGE;

template <class Type> struct Accumulator { using type = float; };
template <> struct Accumulator<double> { using type = double; };
using A = Accumulator<T>::type;

__device__ inline A load(const float* p) { return *p; }
__device__ inline double load(const double* p) { return *p; }
__device__ inline void store(float* p, A value) { *p = (float)value; }
__device__ inline void store(double* p, double value) { *p = value; }
#ifdef HALF
__device__ inline A load(const __half* p) { return __half2float(*p); }
__device__ inline A load(const __nv_bfloat16* p) { return __bfloat162float(*p); }
__device__ inline void store(__half* p, A value) { *p = __float2half_rn(value); }
__device__ inline void store(__nv_bfloat16* p, A value) { *p = __float2bfloat16_rn(value); }
#endif

// What is to be done, as every kernel is told: sizes, conventions, layout.

#define PROBLEM                                                                                                  \
    int channels, int w, int h, int d, int w_out, int h_out, int d_out, int padding, int in_pixels,              \
        int align_corners, int channels_last, int wide, double a
#define GIVEN                                                                                                    \
    { channels, {w, h, d}, {w_out, h_out, d_out}, padding, in_pixels, align_corners, channels_last, wide, a }

struct Problem {
    int channels;
    int size[3], out[3];  // x, y, z; a depth of 1 in two dimensions
    int padding;
    int in_pixels;      // coordinates are pixels, not -1 to 1
    int align_corners;
    int channels_last;  // (N, H, W, C) in memory, else (N, C, H, W)
    int wide;           // theta or the grid is float64, else float32
    double a;           // bicubic's parameter
};

__device__ inline double unit(const Problem& p, int size) {  // pixels a unit of the coordinates
    return p.in_pixels ? 1.0 : 0.5 * (p.align_corners ? size - 1 : size);
}

__device__ inline double middle(const Problem& p, int size) {  // where 0 is, in pixels
    return p.in_pixels ? 0.0 : 0.5 * (size - 1);
}

// An entry of a short array, by comparisons: to look it up would put the array into memory.
__device__ inline int pick(const int* array, int r) { return r == 0 ? array[0] : r == 1 ? array[1] : array[2]; }

__device__ inline INDEX volume(const int* size) { return (INDEX)size[0] * size[1] * size[2]; }

// Where in memory: the first pixel of an image's channel, and the steps from a pixel, or a channel, to the next.

__device__ inline INDEX start(const Problem& p, INDEX pixels, int image, int channel) {
    return p.channels_last ? (INDEX)image * pixels * p.channels + channel
                           : ((INDEX)image * p.channels + channel) * pixels;
}

__device__ inline int pixel_step(const Problem& p) { return p.channels_last ? p.channels : 1; }

// Which pixels of the output a thread works on.

__device__ inline int threads() { return blockDim.x * blockDim.y * blockDim.z; }

__device__ inline int thread() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

struct Pixel {
    int image;
    int j, i, k;
    INDEX place;  // j + w_out * (i + h_out * k)
    bool exists;  // false where a tile hangs over the output's edge: then the pixel is one that does exist
};

__device__ inline Pixel my_pixel(const Problem& p, int q) {  // q: which of the thread's
    int across = (p.out[0] + blockDim.y - 1) / blockDim.y;
    int high = blockDim.z * PIXELS, rows = p.out[1] * p.out[2], down = (rows + high - 1) / high;
    int tile = blockIdx.x % (across * down);
    int column = tile % across * blockDim.y + threadIdx.y;
    int row = tile / across * high + q * blockDim.z + threadIdx.z;
    Pixel pixel;
    pixel.exists = column < p.out[0] && row < rows;
    column = min(column, p.out[0] - 1);
    row = min(row, rows - 1);
    pixel.image = blockIdx.x / (across * down);
    pixel.j = column;
    pixel.i = DIMS == 2 ? row : row % p.out[1];
    pixel.k = DIMS == 2 ? 0 : row / p.out[1];
    pixel.place = (INDEX)row * p.out[0] + column;
    return pixel;
}

// Equation (1): from an output pixel to a position in the input, in pixels.

__device__ inline double read(const void* numbers, INDEX place, int wide) {
    return wide ? ((const double*)numbers)[place] : (double)((const float*)numbers)[place];
}

// One row of theta, composed with both conversions: from the output's pixels to one of the input's coordinates.
__device__ inline void matrix_row(const Problem& p, const void* theta, int image, int r, double* row) {
    INDEX first = ((INDEX)image * DIMS + r) * (DIMS + 1);
    if (p.in_pixels) {
        for (int k = 0; k <= DIMS; k++) row[k] = read(theta, first + k, p.wide);
        return;
    }
    int size = pick(p.size, r);
    double u = unit(p, size);
    double origin = __dadd_rn(__dmul_rn(read(theta, first + DIMS, p.wide), u), middle(p, size));
    for (int k = 0; k < DIMS; k++) {
        double u_out = unit(p, p.out[k]);
        row[k] = __dmul_rn(read(theta, first + k, p.wide), u_out == 0 ? 0 : u / u_out);
        origin = __dadd_rn(origin, -__dmul_rn(row[k], middle(p, p.out[k])));
    }
    row[DIMS] = origin;
}

struct Rows {  // in shared memory: what the pixels of a row have in common
    double matrix[DIMS][DIMS + 1];
    double base[64 * PIXELS][DIMS];
};

__device__ inline void prepare(const Problem& p, const void* theta, const Pixel* pixels, Rows& rows) {
    for (int r = thread(); r < DIMS; r += threads())
        matrix_row(p, theta, pixels[0].image, r, rows.matrix[r]);
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0)
        for (int q = 0; q < PIXELS; q++)
            for (int r = 0; r < DIMS; r++) {
                double x = rows.matrix[r][DIMS];
                if (DIMS == 3) x = __dadd_rn(x, __dmul_rn(rows.matrix[r][DIMS - 1], pixels[q].k));
                x = __dadd_rn(x, __dmul_rn(rows.matrix[r][1], pixels[q].i));
                rows.base[q * blockDim.z + threadIdx.z][r] = x;
            }
    __syncthreads();
}

__device__ inline double affine_position(const Rows& rows, const Pixel& pixel, int q, int r) {
    return __dadd_rn(rows.base[q * blockDim.z + threadIdx.z][r], __dmul_rn(rows.matrix[r][0], pixel.j));
}

__device__ inline double grid_position(const Problem& p, const void* grid, const Pixel& pixel, int r) {
    INDEX place = ((INDEX)pixel.image * volume(p.out) + pixel.place) * DIMS + r;
    double x = read(grid, place, p.wide);
    if (!(fabs(x) < 1e300)) return x;  // infinity stays infinite, even where a unit is 0 pixels
    return __dadd_rn(__dmul_rn(x, unit(p, p.size[r])), middle(p, p.size[r]));
}

// Padding: which pixel stands at a whole number on the endless axis; -1 if none does.

__device__ inline int period(int size, int padding) {
    return padding == WRAP ? size : padding == REFLECT ? 2 * size : max(2 * (size - 1), 1);
}

__device__ inline int extend(int m, int size, int padding) {
    if (padding == OUTSIDE) return m >= 0 && m < size ? m : -1;
    if (padding == BORDER) return min(max(m, 0), size - 1);
    int repeat = period(size, padding);
    m %= repeat;
    if (m < 0) m += repeat;
    if (m < size) return m;
    return padding == REFLECT ? repeat - 1 - m : repeat - m;
}

// The pixels that a sample reads along one axis, and their weights. Weights first: they come from the position alone.

struct Axis {
    int index[TAPS];  // -1: there is no such pixel
    A weight[TAPS];   // k(x - m)
    A slope[TAPS];    // k'(x - m)
    bool known;       // false at NaN
};

// What lies far out, or is not finite, is brought near, or becomes NaN.
__device__ inline double tame(double x, int size, int padding) {
    if (x != x) return x;
    if (padding == OUTSIDE || padding == BORDER) return fmin(fmax(x, -1073741824.0), 1073741824.0);
    return fmod(x, (double)period(size, padding));  // infinity has no mirror image: NaN
}

__device__ inline void weigh(A t, A a, Axis& axis) {  // t from 0 to 1, the way from the pixel below to the one above
    if (TAPS == 1) {
        axis.weight[0] = 1;
        axis.slope[0] = 0;
    } else if (TAPS == 2) {
        axis.weight[0] = 1 - t;
        axis.weight[TAPS - 1] = t;
        axis.slope[0] = -1;
        axis.slope[TAPS - 1] = 1;
    } else {
#pragma unroll
        for (int tap = 0; tap < TAPS; tap++) {
            A sign = tap < 2 ? 1 : -1, s = tap < 2 ? t : 1 - t;
            if (tap == 1 || tap == 2) {  // s is the distance; written as products, which lose little where they are small
                axis.weight[tap] = (1 - s) * (1 + s - (a + 2) * s * s);
                axis.slope[tap] = sign * s * (3 * (a + 2) * s - 2 * (a + 3));
            } else {  // 1 + s is the distance
                axis.weight[tap] = a * s * (1 - s) * (1 - s);
                axis.slope[tap] = sign * a * (1 - s) * (1 - 3 * s);
            }
        }
    }
}

__device__ inline Axis axis(double x, int size, const Problem& p) {
    Axis result;
    if (!(fabs(x) < 1073741824.0)) x = tame(x, size, p.padding);
    result.known = x == x;
    if (!result.known) x = 0;
    // Adding 1.5 * 2^52 rounds to a whole number, ties to even, and leaves it in the low bits: a conversion is slower.
    const double magic = 6755399441055744.0;
    double shifted = __dadd_rn(x, magic);
    int first = (int)__double_as_longlong(shifted);
    A t = (A)(x - __dadd_rn(shifted, -magic));  // from -1/2 to 1/2
    if (TAPS > 1 && t < 0) {
        t += 1;
        first -= 1;
    }
    weigh(t, (A)p.a, result);
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++) {
        result.index[tap] = extend(first + tap - (TAPS == 4), size, p.padding);
        if (!result.known) result.weight[tap] = result.slope[tap] = (A)nan("");
    }
    return result;
}

const int ROLLED = TAPS == 4 ? 1 : TAPS;  // 64 neighbours at once would not fit into the registers

// Every pixel that a sample reads, one function call each: use(place, weight, slopes). A place of -1 does not exist.

template <class Use> __device__ inline void each_neighbour(const Problem& p, const Axis* axes, Use use) {
#pragma unroll ROLLED
    for (int z = 0; z < (DIMS == 3 ? TAPS : 1); z++) {
        int slice = DIMS == 3 ? axes[DIMS - 1].index[z] : 0;
        A wz = DIMS == 3 ? axes[DIMS - 1].weight[z] : 1;
#pragma unroll ROLLED
        for (int y = 0; y < TAPS; y++) {
            int row = axes[1].index[y];
            A wy = axes[1].weight[y];
#pragma unroll
            for (int x = 0; x < TAPS; x++) {
                int column = axes[0].index[x];
                A wx = axes[0].weight[x];
                bool exists = column >= 0 && row >= 0 && slice >= 0;
                INDEX place = exists ? ((INDEX)slice * p.size[1] + row) * p.size[0] + column : -1;
                A slopes[DIMS];
                slopes[0] = axes[0].slope[x] * wy * wz;
                slopes[1] = wx * axes[1].slope[y] * wz;
                if (DIMS == 3) slopes[DIMS - 1] = wx * wy * axes[DIMS - 1].slope[z];
                use(place, wx * wy * wz, slopes);
            }
        }
    }
}

// Equation (3): the output pixel is a weighted sum of its neighbours, in every channel with the same weights.

__device__ inline void sample(
    const Problem& p, T* __restrict__ output, const T* __restrict__ input, const A* __restrict__ fill,
    const Pixel* pixels, const Axis (*axes)[DIMS]) {
    INDEX inputs = volume(p.size), outputs = volume(p.out);
    int image = pixels[0].image, step = pixel_step(p);
    for (int c = threadIdx.x; c < p.channels; c += blockDim.x) {
        const T* plane = input + start(p, inputs, image, c);
        A beyond = fill ? fill[image * p.channels + c] : (A)0, sums[PIXELS] = {};
#pragma unroll
        for (int q = 0; q < PIXELS; q++)
            each_neighbour(p, axes[q], [&](INDEX place, A weight, const A*) {
                sums[q] += weight * (place >= 0 ? load(plane + place * step) : beyond);
            });
#pragma unroll
        for (int q = 0; q < PIXELS; q++)
            if (pixels[q].exists)
                store(output + start(p, outputs, image, c) + pixels[q].place * step, sums[q]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) sample_grid(
    T* __restrict__ output, const T* __restrict__ input, const void* __restrict__ grid, const A* __restrict__ fill,
    PROBLEM) {
    Problem p = GIVEN;
    Pixel pixels[PIXELS];
    Axis axes[PIXELS][DIMS];
#pragma unroll
    for (int q = 0; q < PIXELS; q++) {
        pixels[q] = my_pixel(p, q);
        for (int r = 0; r < DIMS; r++) axes[q][r] = axis(grid_position(p, grid, pixels[q], r), p.size[r], p);
    }
    sample(p, output, input, fill, pixels, axes);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) sample_affine(
    T* __restrict__ output, const T* __restrict__ input, const void* __restrict__ theta, const A* __restrict__ fill,
    PROBLEM) {
    Problem p = GIVEN;
    __shared__ Rows rows;
    Pixel pixels[PIXELS];
    Axis axes[PIXELS][DIMS];
#pragma unroll
    for (int q = 0; q < PIXELS; q++) pixels[q] = my_pixel(p, q);
    prepare(p, theta, pixels, rows);
#pragma unroll
    for (int q = 0; q < PIXELS; q++)
        for (int r = 0; r < DIMS; r++) axes[q][r] = axis(affine_position(rows, pixels[q], q, r), p.size[r], p);
    sample(p, output, input, fill, pixels, axes);
}

// Equations (6) and (7). Each thread hands its gradient back to the pixels that it read, with the weights that it read
// them with. Several threads may have read one pixel, so the additions are atomic; a sum in float32 then depends on
// their order. Whole numbers do not: the deterministic form adds 64-bit fixed-point numbers, `fixed`, scaled so that the
// largest sum fits.

__device__ inline void add(A* grad_input, long long* fixed, double scale, INDEX place, A value) {
#ifdef RACE  // chapter 4 shows what comes of this
    A sum = grad_input[place];
    YIELD();
    grad_input[place] = sum + value;
#else
    if (fixed && isfinite(value))
        atomicAdd((unsigned long long*)fixed + place, (unsigned long long)__double2ll_rn(value * scale));
    else
        atomicAdd(grad_input + place, value);  // what is not finite comes to the same in any order
#endif
}

// Where grad_input is null, nothing is handed back. If the grid moves, grad_position is its gradient, in pixels.
__device__ inline void differentiate(
    const Problem& p, A* grad_input, long long* fixed, double scale, const T* grad_output, const T* input,
    const A* fill, const Pixel& pixel, const Axis* axes, bool moves, A* grad_position) {
    INDEX pixels = volume(p.size), outputs = volume(p.out);
    int step = pixel_step(p);
    bool known = true;
    for (int r = 0; r < DIMS; r++) {
        grad_position[r] = 0;
        known = known && axes[r].known;
    }
    for (int c = threadIdx.x; c < p.channels; c += blockDim.x) {
        INDEX first = start(p, pixels, pixel.image, c);
        A grad = load(grad_output + start(p, outputs, pixel.image, c) + pixel.place * step);
        A beyond = fill ? fill[pixel.image * p.channels + c] : (A)0;
        each_neighbour(p, axes, [&](INDEX place, A weight, const A* slopes) {
            INDEX here = first + place * step;
            if (moves) {
                A value = place >= 0 ? load(input + here) : beyond;
#pragma unroll
                for (int r = 0; r < DIMS; r++) grad_position[r] += grad * value * slopes[r];
            }
            if (grad_input && place >= 0 && known) add(grad_input, fixed, scale, here, weight * grad);
        });
    }
    if (!known)
        for (int r = 0; r < DIMS; r++) grad_position[r] = (A)nan("");
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) backward_grid(
    A* grad_input, long long* fixed, const double* scale, void* grad_grid, const T* __restrict__ grad_output,
    const T* __restrict__ input, const void* __restrict__ grid, const A* __restrict__ fill, PROBLEM) {
    Problem p = GIVEN;
    double factor = fixed ? *scale : 0;
#pragma unroll
    for (int q = 0; q < PIXELS; q++) {
        Pixel pixel = my_pixel(p, q);
        A grad_position[DIMS] = {};
        if (pixel.exists) {
            Axis axes[DIMS];
            for (int r = 0; r < DIMS; r++) axes[r] = axis(grid_position(p, grid, pixel, r), p.size[r], p);
            differentiate(
                p, grad_input, fixed, factor, grad_output, input, fill, pixel, axes, grad_grid, grad_position);
        }
        for (int r = 0; r < DIMS; r++) {
            A sum = grad_position[r];  // over the lanes, each of which had its channels
            for (int other = blockDim.x / 2; other > 0; other /= 2)
                sum += __shfl_xor_sync(0xffffffff, sum, other);
            if (threadIdx.x > 0 || !pixel.exists || !grad_grid) continue;
            INDEX place = ((INDEX)pixel.image * volume(p.out) + pixel.place) * DIMS + r;
            double grad = sum * unit(p, p.size[r]);
            if (p.wide)
                ((double*)grad_grid)[place] = grad;
            else
                ((float*)grad_grid)[place] = (float)grad;
        }
    }
}

// Theta's gradient is a sum over all pixels of an image. A warp sums by shuffles, a block through shared memory, and a
// second kernel, finish_theta, over the blocks: in an order that is fixed, with no grid's gradient in memory.

const int SUMS = DIMS * (DIMS + 1);

__device__ inline void block_sum(const A* values, double* total) {
    __shared__ A warps[32][SUMS];
    int lane = thread() % 32, warp = thread() / 32, alive = min(32, threads() - 32 * warp);
    unsigned mask = alive == 32 ? 0xffffffff : (1u << alive) - 1;
    for (int e = 0; e < SUMS; e++) {
        A sum = values[e];
        for (int other = 16; other > 0; other /= 2) {
            A theirs = __shfl_down_sync(mask, sum, other);
            if (lane + other < alive) sum += theirs;
        }
        if (lane == 0) warps[warp][e] = sum;
    }
    __syncthreads();
    for (int e = thread(); e < SUMS; e += threads()) {
        double sum = 0;
        for (int i = 0; i < (threads() + 31) / 32; i++) sum += warps[i][e];
        total[e] = sum;
    }
}

// The deterministic form need not scatter where nothing repeats the image and the transform shrinks by 2 at most: see
// gather_affine, below. Here is what decides, and the inverse that it then takes.

__device__ inline double cofactor(const double (*m)[DIMS + 1], int r, int k) {
    if (DIMS == 2) return ((r + k) % 2 ? -1 : 1) * m[1 - r][1 - k];
    int r1 = (r + 1) % 3, r2 = (r + 2) % 3, k1 = (k + 1) % 3, k2 = (k + 2) % 3;
    return m[r1 % DIMS][k1] * m[r2 % DIMS][k2] - m[r1 % DIMS][k2] * m[r2 % DIMS][k1];
}

__device__ inline bool gathers(const Problem& p, const double (*matrix)[DIMS + 1], double (*inverse)[DIMS]) {
    double determinant = 0;
    for (int k = 0; k < DIMS; k++) determinant += matrix[0][k] * cofactor(matrix, 0, k);
    bool narrow = p.padding == OUTSIDE;
    for (int k = 0; k < DIMS; k++) {
        double width = 0;
        for (int r = 0; r < DIMS; r++) {
            inverse[k][r] = cofactor(matrix, r, k) / determinant;
            width += fabs(inverse[k][r]);
        }
        narrow = narrow && width < (DIMS == 2 ? 2.83 : 3.47);  // any rotation, shrunk by 2 at most
    }
    for (int r = 0; r < DIMS; r++) narrow = narrow && fabs(matrix[r][DIMS]) < 1e9;
    return narrow;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) backward_affine(
    A* grad_input, long long* fixed, const double* scale, double* partial, int gathered,
    const T* __restrict__ grad_output, const T* __restrict__ input, const void* __restrict__ theta,
    const A* __restrict__ fill, PROBLEM) {
    Problem p = GIVEN;
    __shared__ Rows rows;
    __shared__ bool skip;
    Pixel pixels[PIXELS];
#pragma unroll
    for (int q = 0; q < PIXELS; q++) pixels[q] = my_pixel(p, q);
    prepare(p, theta, pixels, rows);
    if (gathered) {
        __shared__ double inverse[DIMS][DIMS];
        if (thread() == 0) skip = gathers(p, rows.matrix, inverse);
        __syncthreads();
        if (skip) grad_input = nullptr;
    }
    double factor = fixed ? *scale : 0;
    A sums[SUMS] = {};
#pragma unroll
    for (int q = 0; q < PIXELS; q++) {
        Pixel pixel = pixels[q];
        if (!pixel.exists) continue;
        Axis axes[DIMS];
        for (int r = 0; r < DIMS; r++) axes[r] = axis(affine_position(rows, pixel, q, r), p.size[r], p);
        A grad_position[DIMS];
        differentiate(
            p, grad_input, fixed, factor, grad_output, input, fill, pixel, axes, partial, grad_position);
        A target[3] = {
            pixel.j - (A)middle(p, p.out[0]), pixel.i - (A)middle(p, p.out[1]), pixel.k - (A)middle(p, p.out[2])};
        for (int r = 0; r < DIMS; r++) {
            for (int k = 0; k < DIMS; k++) sums[r * (DIMS + 1) + k] += grad_position[r] * target[k];
            sums[r * (DIMS + 1) + DIMS] += grad_position[r];
        }
    }
    if (!partial) return;
    block_sum(sums, partial + (INDEX)blockIdx.x * SUMS);
}

// One block an image: the sums over its tiles, and from the matrix back to theta.
extern "C" __global__ void __launch_bounds__(THREADS, 1) finish_theta(
    void* grad_theta, const double* partial, int tiles, PROBLEM) {
    Problem p = GIVEN;
    __shared__ double columns[THREADS][SUMS];
    for (int e = 0; e < SUMS; e++) {
        double sum = 0;
        for (int tile = thread(); tile < tiles; tile += threads())
            sum += partial[((INDEX)blockIdx.x * tiles + tile) * SUMS + e];
        columns[thread()][e] = sum;
    }
    __syncthreads();
    for (int e = thread(); e < SUMS; e += threads()) {
        double sum = 0;
        for (int i = 0; i < threads(); i++) sum += columns[i][e];
        int r = e / (DIMS + 1), k = e % (DIMS + 1);
        double u = unit(p, pick(p.size, r)), u_out = k < DIMS ? unit(p, pick(p.out, k)) : 1;
        sum *= u_out == 0 ? 0 : u / u_out;
        if (p.wide)
            ((double*)grad_theta)[blockIdx.x * SUMS + e] = sum;
        else
            ((float*)grad_theta)[blockIdx.x * SUMS + e] = (float)sum;
    }
}

// The deterministic backward, where nothing repeats the image: one thread a pixel of the input gathers from the outputs
// that read it. They lie in a box around where the inverse takes the pixel. Wide boxes are left to the scatter.

extern "C" __global__ void __launch_bounds__(THREADS, 1) gather_affine(
    A* grad_input, const T* grad_output, const void* theta, PROBLEM) {
    Problem p = GIVEN;
    INDEX pixels = volume(p.size), outputs = volume(p.out);
    int across = blockDim.y * blockDim.z, blocks = (pixels + across - 1) / across;
    int image = blockIdx.x / blocks;
    __shared__ double matrix[DIMS][DIMS + 1], inverse[DIMS][DIMS];
    __shared__ bool mine;
    for (int r = thread(); r < DIMS; r += threads()) matrix_row(p, theta, image, r, matrix[r]);
    __syncthreads();
    if (thread() == 0) mine = gathers(p, matrix, inverse);
    __syncthreads();
    INDEX place = (INDEX)(blockIdx.x % blocks) * across + threadIdx.y + blockDim.y * threadIdx.z;
    if (!mine || place >= pixels) return;

    int here[3] = {(int)(place % p.size[0]), (int)(place / p.size[0] % p.size[1]),
                   (int)(place / p.size[0] / p.size[1])};
    int low[3] = {0, 0, 0}, high[3] = {0, 0, 0};
    for (int k = 0; k < DIMS; k++) {
        double centre = 0, reach = 1e-6;
        for (int r = 0; r < DIMS; r++) {
            centre += inverse[k][r] * (here[r] - matrix[r][DIMS]);
            reach += fabs(inverse[k][r]) * (0.5 * TAPS);
        }
        low[k] = (int)fmax(ceil(centre - reach), 0.0);
        high[k] = (int)fmin(floor(centre + reach), p.out[k] - 1.0);
    }

    const int BATCH = 4;  // channels at a time, so that each weight is computed once for several
    int step = pixel_step(p), lanes = blockDim.x;
    for (int c = threadIdx.x; c < p.channels; c += BATCH * lanes) {
        A sums[BATCH] = {};
        for (int k = low[2]; k <= high[2]; k++)
            for (int i = low[1]; i <= high[1]; i++)
#pragma unroll 1
                for (int j = low[0]; j <= high[0]; j++) {
                    A weight = 1;
                    for (int r = 0; r < DIMS; r++) {
                        double x = matrix[r][DIMS];
                        if (DIMS == 3) x = __dadd_rn(x, __dmul_rn(matrix[r][DIMS - 1], k));
                        x = __dadd_rn(x, __dmul_rn(matrix[r][1], i));
                        Axis taps = axis(__dadd_rn(x, __dmul_rn(matrix[r][0], j)), p.size[r], p);
                        A mine = 0;
                        for (int tap = 0; tap < TAPS; tap++)
                            if (taps.index[tap] == here[r]) mine = taps.weight[tap];
                        weight *= mine;
                    }
                    if (weight == 0) continue;
                    INDEX out = ((INDEX)k * p.out[1] + i) * p.out[0] + j;
                    for (int q = 0; q < BATCH && c + q * lanes < p.channels; q++)
                        sums[q] += weight * load(grad_output + start(p, outputs, image, c + q * lanes) + out * step);
                }
        for (int q = 0; q < BATCH && c + q * lanes < p.channels; q++)
            grad_input[start(p, pixels, image, c + q * lanes) + place * step] = sums[q];
    }
}

// The deterministic backward everywhere else, in fixed point: the largest gradient, the scale, zeros, and back. Where
// theta is given, images that are gathered are passed over. `blocks` blocks work on each image.

__device__ inline bool is_gathered(const Problem& p, const void* theta, int image) {
    __shared__ double matrix[DIMS][DIMS + 1], inverse[DIMS][DIMS];
    __shared__ bool result;
    for (int r = thread(); r < DIMS; r += threads()) matrix_row(p, theta, image, r, matrix[r]);
    __syncthreads();
    if (thread() == 0) result = gathers(p, matrix, inverse);
    __syncthreads();
    return result;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) find_largest(
    long long* largest, const T* grad_output, const void* theta, int blocks, PROBLEM) {
    Problem p = GIVEN;
    int image = blockIdx.x / blocks;
    if (theta && is_gathered(p, theta, image)) return;
    INDEX count = volume(p.out) * p.channels, step = (INDEX)blocks * threads();
    double most = 0;
    for (INDEX i = (INDEX)(blockIdx.x % blocks) * threads() + thread(); i < count; i += step) {
        double size = fabs((double)load(grad_output + image * count + i));
        if (isfinite(size)) most = fmax(most, size);
    }
    atomicMax((unsigned long long*)largest, (unsigned long long)__double_as_longlong(most));  // bits of positive numbers
}

// Up to `outputs` pixels add up in one place, each with weights that add up to less than 4: they must stay below 2^62.
extern "C" __global__ void find_scale(double* scale, const long long* largest, double outputs) {
    double bound = 4 * outputs * __longlong_as_double(*largest);
    *scale = bound > 0 ? ldexp(1.0, min(61 - ilogb(bound), 1000)) : 1;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) clear(
    A* grad_input, long long* fixed, const void* theta, int blocks, PROBLEM) {
    Problem p = GIVEN;
    int image = blockIdx.x / blocks;
    if (theta && is_gathered(p, theta, image)) return;
    INDEX count = volume(p.size) * p.channels, step = (INDEX)blocks * threads();
    for (INDEX i = (INDEX)(blockIdx.x % blocks) * threads() + thread(); i < count; i += step) {
        grad_input[image * count + i] = 0;
        fixed[image * count + i] = 0;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) from_fixed(
    A* grad_input, const long long* fixed, const double* scale, const void* theta, int blocks, PROBLEM) {
    Problem p = GIVEN;
    int image = blockIdx.x / blocks;
    if (theta && is_gathered(p, theta, image)) return;
    INDEX count = volume(p.size) * p.channels, step = (INDEX)blocks * threads();
    for (INDEX i = (INDEX)(blockIdx.x % blocks) * threads() + thread(); i < count; i += step)
        grad_input[image * count + i] += (A)(fixed[image * count + i] / *scale);
}

// The gradient of what lies beyond the image: one block for each image and channel.
extern "C" __global__ void __launch_bounds__(THREADS, 1) backward_fill(
    A* grad_fill, const T* grad_output, const void* coordinates, int affine, PROBLEM) {
    Problem p = GIVEN;
    __shared__ double matrix[DIMS][DIMS + 1], sums[THREADS];
    Pixel pixel;
    pixel.image = blockIdx.x / p.channels;
    int c = blockIdx.x % p.channels, step = pixel_step(p);
    if (affine)
        for (int r = thread(); r < DIMS; r += threads()) matrix_row(p, coordinates, pixel.image, r, matrix[r]);
    __syncthreads();
    INDEX outputs = volume(p.out);
    double total = 0;
    for (pixel.place = thread(); pixel.place < outputs; pixel.place += threads()) {
        pixel.j = pixel.place % p.out[0];
        pixel.i = pixel.place / p.out[0] % p.out[1];
        pixel.k = pixel.place / p.out[0] / p.out[1];
        Axis axes[DIMS];
        bool known = true;
        for (int r = 0; r < DIMS; r++) {
            double x;
            if (affine) {
                x = matrix[r][DIMS];
                if (DIMS == 3) x = __dadd_rn(x, __dmul_rn(matrix[r][DIMS - 1], pixel.k));
                x = __dadd_rn(x, __dmul_rn(matrix[r][1], pixel.i));
                x = __dadd_rn(x, __dmul_rn(matrix[r][0], pixel.j));
            } else {
                x = grid_position(p, coordinates, pixel, r);
            }
            axes[r] = axis(x, p.size[r], p);
            known = known && axes[r].known;
        }
        A beyond = 0;
        each_neighbour(p, axes, [&](INDEX place, A weight, const A*) {
            if (place < 0) beyond += weight;
        });
        if (known) total += (double)beyond * load(grad_output + start(p, outputs, pixel.image, c) + pixel.place * step);
    }
    sums[thread()] = total;
    __syncthreads();
    if (thread() > 0) return;
    for (int i = 1; i < threads(); i++) total += sums[i];
    grad_fill[blockIdx.x] = (A)total;
}
