// What all kernels share: types, instructions that the compiler has no words for, and numbers with one rounding each.
//
// Nothing is included: the compiler that is loaded at run time has no headers. The files are compiled with
// --fmad=false, so that a sum of a product is rounded twice, as it is written, and once where it says fma.

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER static __device__ __forceinline__
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
// So that as many blocks fit a multiprocessor, and no more need to.
#define KERNEL_BLOCKS(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)

// Threads of a warp.
#define WARP 32
// Partial sums of every sum of floats: those of the processor's kernels.
#define LANES 16
#define ALL 0xffffffffu
#define INFINITE __int_as_float(0x7f800000)
#define NOT_A_NUMBER __int_as_float(0x7fffffff)

DEVICE bool is_finite(float x) {
    return fabsf(x) <= 3.402823466e38f;
}

DEVICE float fma(float a, float b, float c) {
    return __fmaf_rn(a, b, c);
}

// e^x for x <= 0: reduced by ln 2 in two parts, and a polynomial of degree 7.
DEVICE float exp_of(float x) {
    x = fmaxf(x, -87.0f);
    const float n = rintf(x * 1.44269504088896340736f);
    float r = fma(-n, 0.6933594f, x);
    r = fma(-n, -2.1219444e-4f, r);
    float power = 1.0f / 5040.0f;
    power = fma(power, r, 1.0f / 720.0f);
    power = fma(power, r, 1.0f / 120.0f);
    power = fma(power, r, 1.0f / 24.0f);
    power = fma(power, r, 1.0f / 6.0f);
    power = fma(power, r, 1.0f / 2.0f);
    power = fma(power, r, 1.0f);
    power = fma(power, r, 1.0f);
    return power * __int_as_float(((int)n + 127) << 23);
}

// Partial sums of the first sixteen lanes, in the order of the processor's kernels; lane 0 has the result.
DEVICE float tree(float lane) {
#pragma unroll
    for (int half = LANES / 2; half; half /= 2) {
        lane = lane + __shfl_down_sync(ALL, lane, half);
    }
    return lane;
}

DEVICE float half_to_float(u16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}

DEVICE u16 float_to_half(float x) {
    u16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}

DEVICE float bfloat_to_float(u16 x) {
    return __int_as_float((u32)x << 16);
}

// The block of a launch, or what one of a kernel that does the work of several stands for.
struct Where {
    int x, y, z;
};

DEVICE Where here() {
    const Where at = {(int)blockIdx.x, (int)blockIdx.y, (int)blockIdx.z};
    return at;
}

DEVICE int lane_id() {
    return threadIdx.x % WARP;
}

DEVICE int warp_id() {
    return threadIdx.x / WARP;
}

// The greatest and the sum over the threads of a warp; all get it.
DEVICE float warp_max(float x) {
#pragma unroll
    for (int half = WARP / 2; half; half /= 2) {
        x = fmaxf(x, __shfl_xor_sync(ALL, x, half));
    }
    return x;
}

template <class T>
DEVICE T warp_sum(T x) {
#pragma unroll
    for (int half = WARP / 2; half; half /= 2) {
        x += __shfl_xor_sync(ALL, x, half);
    }
    return x;
}

// The same over the threads of a block of `THREADS`. The buffer has a number for each warp, and is free again behind the next
// barrier.
template <int THREADS>
DEVICE float block_max(float x, float *buffer) {
    x = warp_max(x);
    if (lane_id() == 0) {
        buffer[warp_id()] = x;
    }
    __syncthreads();
    x = buffer[0];
#pragma unroll
    for (int warp = 1; warp < THREADS / WARP; warp++) {
        x = fmaxf(x, buffer[warp]);
    }
    return x;
}

template <int THREADS, class T>
DEVICE T block_sum(T x, T *buffer) {
    x = warp_sum(x);
    if (lane_id() == 0) {
        buffer[warp_id()] = x;
    }
    __syncthreads();
    x = buffer[0];
#pragma unroll
    for (int warp = 1; warp < THREADS / WARP; warp++) {
        x += buffer[warp];
    }
    return x;
}

// The gate of a feed-forward network, as the model has it.
enum Activation { RELU2 = 0, SILU = 1, GELU = 2 };

// x / (1 + e^-z).
DEVICE float weigh(float x, float z) {
    const float e = exp_of(-fabsf(z));
    return __fdiv_rn(x < 0.0f ? x * e : fabsf(x), 1.0f + e);
}

DEVICE float gated(int activation, float gate, float up) {
    if (!is_finite(gate)) {
        return NOT_A_NUMBER;
    }
    float g;
    if (activation == RELU2) {
        g = fmaxf(gate, 0.0f) * fmaxf(gate, 0.0f);
    } else if (activation == SILU) {
        g = weigh(gate, gate);
    } else {
        g = weigh(gate, gate * fma(gate * gate, 0.071354814f, 1.595769f));
    }
    return g * up;
}
