// One to eight tokens whose activations each block makes for itself: two kernels in one, the second of which has the first of its weights
// on their way while it waits for the rows. Every block does the same work on them; it takes as long as one would.

struct Input {
    const float *x;      // [tokens, cols]
    const float *weight; // [cols], of the norm
    float eps;
    int cols;
};

// Bytes behind each row in shared memory, so that the same columns of different tokens lie in different banks.
#define PAD 16

// What is known of the rows, in shared memory.
struct Prepared {
    float factor[GEMV_TOKENS]; // of the norm
    float greatest[GEMV_TOKENS][GEMV_WARPS];
    int sums[GEMV_TOKENS][GEMV_WARPS];
    float scale[GEMV_TOKENS];
};

// [tokens, cols] floats, then [tokens, width + PAD] bytes.
extern __shared__ float prepared_rows[];

// 1 / sqrt(mean(x^2) + eps) of rows in shared memory, a warp each.
DEVICE void norm_factors(const Input &in, int tokens, Prepared &known) {
    for (int token = warp_id(); token < tokens; token += blockDim.x / WARP) {
        const float factor = norm_factor(prepared_rows + token * in.cols, in.cols, in.eps);
        if (lane_id() == 0) {
            known.factor[token] = factor;
        }
    }
}

// Normalises a row; gives the greatest of the thread's numbers, by size.
template <bool NORM>
DEVICE float greatest_of(const Input &in, float *row, float factor) {
    float greatest = 0.0f;
#pragma unroll 4
    for (int i = threadIdx.x; i < in.cols; i += blockDim.x) {
        if (NORM) {
            row[i] = in.weight[i] * (row[i] * factor);
        }
        greatest = fmaxf(greatest, is_finite(row[i]) ? fabsf(row[i]) : INFINITE);
    }
    return greatest;
}

// Rows of floats to bytes in shared memory, normalised before if `NORM`. Scales and sums of all warps are there behind the next
// barrier.
template <bool NORM>
DEVICE Few prepare(const Input &in, const Product &p, Prepared &known) {
    const int warps = blockDim.x / WARP, stride = p.width + PAD;
    i8 *bytes = (i8 *)(prepared_rows + p.tokens * in.cols);
#pragma unroll 4
    for (int i = threadIdx.x; i < p.tokens * in.cols; i += blockDim.x) {
        prepared_rows[i] = in.x[i];
    }
    __syncthreads();
    if (NORM) {
        norm_factors(in, p.tokens, known);
        __syncthreads();
    }
    for (int token = 0; token < p.tokens; token++) {
        const float factor = NORM ? known.factor[token] : 0.0f;
        const float greatest = warp_max(greatest_of<NORM>(in, prepared_rows + token * in.cols, factor));
        if (lane_id() == 0) {
            known.greatest[token][warp_id()] = greatest;
        }
    }
    __syncthreads();
    for (int token = 0; token < p.tokens; token++) {
        float greatest = known.greatest[token][0];
        for (int warp = 1; warp < warps; warp++) {
            greatest = fmaxf(greatest, known.greatest[token][warp]);
        }
        const Scale scale = scale_of(greatest);
        const int sum = warp_sum(bytes_of(prepared_rows + token * in.cols, in.cols, p.width, scale, bytes + token * stride));
        if (lane_id() == 0) {
            known.sums[token][warp_id()] = sum;
        }
        if (threadIdx.x == 0) {
            known.scale[token] = scale.wrong ? NOT_A_NUMBER : scale.factor;
        }
    }
    __syncthreads();
    const Few few = {bytes, stride, p.tokens};
    return few;
}

// The sum of all activations of a token.
DEVICE int sum_of(const Prepared &known, int token) {
    int sum = 0;
    for (int warp = 0; warp < blockDim.x / WARP; warp++) {
        sum += known.sums[token][warp];
    }
    return sum;
}

// The beginning of a tile of any of the matrices.
DEVICE Share begin_any(const Product &p, int tile) {
    const Matrix m = find(p, tile);
    return begin(p, m.weights, tile);
}

// The result of a thread, from the sums of a tile.
DEVICE void put_prepared(const Product &p, int tile, int sum, const Prepared &known) {
    const Matrix m = find(p, tile);
    const int token = threadIdx.x % GEMV_TOKENS, row = TILE * tile + threadIdx.x / GEMV_TOKENS;
    if (threadIdx.x < GEMV_RESULTS && token < p.tokens && row < m.rows) {
        put(p, m, token, row, scaled(sum, sum_of(known, token), known.scale[token], m.scale));
    }
}

DEVICE void put_gated_prepared(const Product &p, int tile, int gate, int up, const Prepared &known) {
    const int token = threadIdx.x % GEMV_TOKENS;
    if (threadIdx.x < GEMV_RESULTS && token < p.tokens) {
        put_gated(p, tile, gate, up, sum_of(known, token), known.scale[token]);
    }
}

template <bool NORM>
DEVICE void gemv_prepared(const Input &in, const Product &p) {
    __shared__ int sums[GEMV_WARPS][GEMV_RESULTS];
    __shared__ Prepared known;
    const Share weights = begin_any(p, blockIdx.x);
    const Few few = prepare<NORM>(in, p, known);
    put_prepared(p, blockIdx.x, tile_by_mma(weights, few, sums), known);
}

#if __CUDA_ARCH__ >= 800
KERNEL(GEMV_THREADS) i2s_gpu_gemv_mma_u8s8_norm(Input in, Product p) {
    gemv_prepared<true>(in, p);
}

KERNEL(GEMV_THREADS) i2s_gpu_gemv_mma_u8s8_quant(Input in, Product p) {
    gemv_prepared<false>(in, p);
}

KERNEL(GEMV_THREADS) i2s_gpu_gemv_mma_u8s8_norm_gate(Input in, Product p) {
    __shared__ int sums[2][GEMV_WARPS][GEMV_RESULTS];
    __shared__ Prepared known;
    const int tile = blockIdx.x;
    const Share gates = begin(p, p.of[0].weights, tile), ups = begin(p, p.of[1].weights, tile);
    const Few few = prepare<true>(in, p, known);
    const int gate = tile_by_mma(gates, few, sums[0]), up = tile_by_mma(ups, few, sums[1]);
    put_gated_prepared(p, tile, gate, up, known);
}
#endif
