// One to eight tokens: a block for each tile of 16 rows, whose warps share out the columns.

// Threads of a block at most; the host takes as many as suit the device.
#define GEMV_THREADS 512
#define GEMV_WARPS (GEMV_THREADS / WARP)
#define GEMV_TOKENS 8
// Results of a block: one for each of its first threads. There are no fewer.
#define GEMV_RESULTS (TILE * GEMV_TOKENS)

// The result of a thread, from the sums of all warps.
DEVICE int gather_sums(int (*sums)[GEMV_RESULTS]) {
    __syncthreads();
    int sum = 0;
    if (threadIdx.x < GEMV_RESULTS) {
        for (int warp = 0; warp < blockDim.x / WARP; warp++) {
            sum += sums[warp][threadIdx.x];
        }
    }
    return sum;
}

// What a thread has of a tile: its part of every step that its warp takes, of which the first are on their way before they are
// needed.
#define AHEAD 4

struct Share {
    const uint4 *weights; // of its lane in the first step
    int steps;
    uint4 ahead[AHEAD];
};

DEVICE Share begin(const Product &p, const uint4 *weights, int tile) {
    Share t;
    t.steps = p.width / STEP;
    t.weights = weights + (u64)tile * t.steps * WARP + lane_id();
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
        const int s = warp_id() + i * (blockDim.x / WARP);
        const uint4 none = {};
        t.ahead[i] = s < t.steps ? __ldcs(t.weights + (u64)s * WARP) : none;
    }
    return t;
}

// The same for all tokens, each of whose activations begin `stride` bytes behind those of the one before.
struct Few {
    const i8 *x;
    int stride;
    int tokens;
};

// A step, without a shift: the four codes of a byte go to products of their own, whose sums are multiples of 1, 4, 16 and 64.
DEVICE void step_by_mma(int (&d)[4][4], uint4 q, const u32 *x, bool there) {
#pragma unroll
    for (int plane = 0; plane < 4; plane++) {
        const u32 mask = 0x03030303u << (2 * plane);
        const u32 b0 = there ? x[8 * plane] : 0, b1 = there ? x[8 * plane + 4] : 0;
        mma_u8s8(d[plane], q.x & mask, q.y & mask, q.z & mask, q.w & mask, b0, b1);
    }
}

// Sums of a tile by all tokens. A thread gets the result of row threadIdx.x / 8 and token threadIdx.x % 8.
DEVICE int tile_by_mma(const Share &t, const Few &few, int (*sums)[GEMV_RESULTS]) {
    const int lane = lane_id(), warp = warp_id(), warps = blockDim.x / WARP;
    const int token = lane / 4;
    const u32 *x = (const u32 *)(few.x + (u64)token * few.stride) + lane % 4;
    const bool there = token < few.tokens;
    int d[4][4] = {};
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
        const int s = warp + i * warps;
        if (s < t.steps) {
            step_by_mma(d, t.ahead[i], x + s * (STEP / 4), there);
        }
    }
#pragma unroll 2
    for (int s = warp + AHEAD * warps; s < t.steps; s += warps) {
        step_by_mma(d, __ldcs(t.weights + (u64)s * WARP), x + s * (STEP / 4), there);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int sum = d[0][i] + (d[1][i] >> 2) + (d[2][i] >> 4) + (d[3][i] >> 6);
        sums[warp][(lane / 4 + 8 * (i / 2)) * GEMV_TOKENS + 2 * (lane % 4) + i % 2] = sum;
    }
    return gather_sums(sums);
}

// The same with the product of four bytes that older devices have.
DEVICE int tile_by_dp4a(const Product &p, const uint4 *weights, int tile, int (*sums)[GEMV_RESULTS]) {
    const int lane = lane_id(), warp = warp_id(), steps = p.width / STEP;
    const uint4 *w = weights + (u64)tile * steps * WARP + lane;
    int d[2][GEMV_TOKENS] = {};
    for (int s = warp; s < steps; s += blockDim.x / WARP) {
        const uint4 q = __ldcs(w + (u64)s * WARP);
        const u32 *x = (const u32 *)p.x + s * (STEP / 4) + lane % 4;
#pragma unroll
        for (int token = 0; token < GEMV_TOKENS; token++) {
            if (token < p.tokens) {
#pragma unroll
                for (int plane = 0; plane < 4; plane++) {
                    const u32 *at = x + (u64)token * (p.width / 4) + 8 * plane;
                    const u32 low = at[0], high = at[4];
                    const int shift = 2 * plane;
                    d[0][token] = dp4a_u8s8((q.x >> shift) & 0x03030303u, low, d[0][token]);
                    d[1][token] = dp4a_u8s8((q.y >> shift) & 0x03030303u, low, d[1][token]);
                    d[0][token] = dp4a_u8s8((q.z >> shift) & 0x03030303u, high, d[0][token]);
                    d[1][token] = dp4a_u8s8((q.w >> shift) & 0x03030303u, high, d[1][token]);
                }
            }
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
#pragma unroll
        for (int token = 0; token < GEMV_TOKENS; token++) {
            int sum = d[half][token];
            sum += __shfl_xor_sync(ALL, sum, 1);
            sum += __shfl_xor_sync(ALL, sum, 2);
            if (lane % 4 == token % 4) {
                sums[warp][(lane / 4 + 8 * half) * GEMV_TOKENS + token] = sum;
            }
        }
    }
    return gather_sums(sums);
}

DEVICE int tile_by_mma(const Product &p, const uint4 *weights, int tile, int (*sums)[GEMV_RESULTS]) {
    const Few few = {p.x, p.width, p.tokens};
    return tile_by_mma(begin(p, weights, tile), few, sums);
}

typedef int (*TileSums)(const Product &, const uint4 *, int, int (*)[GEMV_RESULTS]);

template <TileSums SUMS>
DEVICE void gemv(const Product &p) {
    __shared__ int sums[GEMV_WARPS][GEMV_RESULTS];
    int tile = blockIdx.x;
    const Matrix m = find(p, tile);
    const int sum = SUMS(p, m.weights, tile, sums);
    const int token = threadIdx.x % GEMV_TOKENS, row = TILE * tile + threadIdx.x / GEMV_TOKENS;
    if (threadIdx.x < GEMV_RESULTS && token < p.tokens && row < m.rows) {
        put(p, m, token, row, scaled(sum, p.x_sum[token], p.x_scale[token], m.scale));
    }
}

// The result of a thread, from its sums of both matrices.
DEVICE void put_gated(const Product &p, int tile, int gate, int up, int x_sum, float x_scale) {
    const int token = threadIdx.x % GEMV_TOKENS, row = TILE * tile + threadIdx.x / GEMV_TOKENS;
    if (row < p.of[0].rows) {
        const float weight = scaled(gate, x_sum, x_scale, p.of[0].scale);
        const float weighed = scaled(up, x_sum, x_scale, p.of[1].scale);
        *result(p.of[0], token, row) = gated(p.activation, weight, weighed);
    }
}

template <TileSums SUMS>
DEVICE void gemv_gate(const Product &p) {
    __shared__ int sums[2][GEMV_WARPS][GEMV_RESULTS];
    const int tile = blockIdx.x;
    const int gate = SUMS(p, p.of[0].weights, tile, sums[0]);
    const int up = SUMS(p, p.of[1].weights, tile, sums[1]);
    const int token = threadIdx.x % GEMV_TOKENS;
    if (threadIdx.x < GEMV_RESULTS && token < p.tokens) {
        put_gated(p, tile, gate, up, p.x_sum[token], p.x_scale[token]);
    }
}

#if __CUDA_ARCH__ >= 800
KERNEL(GEMV_THREADS) i2s_gpu_gemv_mma_u8s8(Product p) {
    gemv<tile_by_mma>(p);
}

KERNEL(GEMV_THREADS) i2s_gpu_gemv_mma_u8s8_gate(Product p) {
    gemv_gate<tile_by_mma>(p);
}
#endif

KERNEL(GEMV_THREADS) i2s_gpu_gemv_dp4a(Product p) {
    gemv<tile_by_dp4a>(p);
}

KERNEL(GEMV_THREADS) i2s_gpu_gemv_dp4a_gate(Product p) {
    gemv_gate<tile_by_dp4a>(p);
}
