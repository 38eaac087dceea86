// Rows of floats, a block each: RMSNorm, and to 8 bits.

#define NORM_THREADS 256

// 1 / sqrt(mean(x^2) + eps) of a row in shared memory; the first thread of the warp gets it.
DEVICE float norm_factor(const float *row, int cols, float eps) {
    float squares = 0.0f;
    if (lane_id() < LANES) {
#pragma unroll 16
        for (int i = lane_id(); i < cols; i += LANES) {
            squares = fma(row[i], row[i], squares);
        }
    }
    const float mean = __fdiv_rn(tree(squares), (float)cols);
    return is_finite(mean) ? __frcp_rn(__fsqrt_rn(mean + eps)) : NOT_A_NUMBER;
}

// How a row becomes bytes: x * 127 / max(|x|). One with what is not finite is zeros, with a scale that is no number.
struct Scale {
    float factor;
    bool wrong;
};

DEVICE Scale scale_of(float greatest) {
    const Scale scale = {__fdiv_rn(127.0f, fmaxf(greatest, 1e-5f)), !is_finite(greatest)};
    return scale;
}

// The row to bytes, halves to even; behind it are zeros up to `width`, a multiple of four. Gives the sum of the thread's.
DEVICE int bytes_of(const float *row, int cols, int width, const Scale &scale, i8 *q) {
    int total = 0;
    for (int i = threadIdx.x; i < width / 4; i += blockDim.x) {
        u32 word = 0;
#pragma unroll
        for (int b = 0; b < 4; b++) {
            const int at = 4 * i + b;
            const int byte = at < cols && !scale.wrong ? __float2int_rn(row[at] * scale.factor) : 0;
            total += byte;
            word |= (u32)(byte & 255) << (8 * b);
        }
        ((u32 *)q)[i] = word;
    }
    return total;
}

// The row to 8 bits. Its scale and the sum of the bytes go beside it.
DEVICE void quantize_row(const float *row, int cols, int width, i8 *q, float *scale, int *sum, float *floats, int *ints) {
    float greatest = 0.0f;
    for (int i = threadIdx.x; i < cols; i += NORM_THREADS) {
        greatest = fmaxf(greatest, is_finite(row[i]) ? fabsf(row[i]) : INFINITE);
    }
    greatest = block_max<NORM_THREADS>(greatest, floats);
    const Scale of = scale_of(greatest);
    const int total = block_sum<NORM_THREADS>(bytes_of(row, cols, width, of, q), ints);
    if (threadIdx.x == 0) {
        *scale = of.wrong ? NOT_A_NUMBER : of.factor;
        *sum = total;
    }
}

struct Norm {
    const float *x;      // [rows, cols]
    const float *weight; // [cols]
    const int *which;    // row of x for each result, or null: all in order
    float eps;
    int cols;
};

struct Quantized {
    i8 *q;        // [rows, width]
    float *scale; // [rows]
    int *sum;     // [rows]
    int width;
};

extern __shared__ float norm_row[];

// A row, normalised, into shared memory.
DEVICE void normalize(const Norm &norm, int row, float *factor) {
    const int from = norm.which ? norm.which[row] : row;
    const float *x = norm.x + (u64)from * norm.cols;
    for (int i = threadIdx.x; i < norm.cols; i += NORM_THREADS) {
        norm_row[i] = x[i];
    }
    __syncthreads();
    if (threadIdx.x < WARP) {
        const float by = norm_factor(norm_row, norm.cols, norm.eps);
        if (threadIdx.x == 0) {
            *factor = by;
        }
    }
    __syncthreads();
    const float by = *factor;
    for (int i = threadIdx.x; i < norm.cols; i += NORM_THREADS) {
        norm_row[i] = norm.weight[i] * (norm_row[i] * by);
    }
    __syncthreads();
}

DEVICE void rmsnorm(const Norm &norm, float *y, int row, float *factor) {
    normalize(norm, row, factor);
    for (int i = threadIdx.x; i < norm.cols; i += NORM_THREADS) {
        y[(u64)row * norm.cols + i] = norm_row[i];
    }
}

KERNEL(NORM_THREADS) rmsnorm_f32(Norm norm, float *y) {
    __shared__ float factor;
    rmsnorm(norm, y, blockIdx.x, &factor);
}

KERNEL(NORM_THREADS) rmsnorm_quant_i8(Norm norm, Quantized out) {
    __shared__ float floats[NORM_THREADS / WARP];
    __shared__ int ints[NORM_THREADS / WARP];
    __shared__ float factor;
    const int row = blockIdx.x;
    normalize(norm, row, &factor);
    i8 *q = out.q + (u64)row * out.width;
    quantize_row(norm_row, norm.cols, out.width, q, out.scale + row, out.sum + row, floats, ints);
}

KERNEL(NORM_THREADS) quant_i8(const float *x, int cols, Quantized out) {
    __shared__ float floats[NORM_THREADS / WARP];
    __shared__ int ints[NORM_THREADS / WARP];
    const int row = blockIdx.x;
    for (int i = threadIdx.x; i < cols; i += NORM_THREADS) {
        norm_row[i] = x[(u64)row * cols + i];
    }
    __syncthreads();
    i8 *q = out.q + (u64)row * out.width;
    quantize_row(norm_row, cols, out.width, q, out.scale + row, out.sum + row, floats, ints);
}
