// Embeddings, the output layer, and what is done number by number.

#define EMBED_THREADS 256
#define HEAD_THREADS 256
// Rows of the table of a block: two threads for each.
#define HEAD_ROWS (HEAD_THREADS / 2)
// Columns of hidden states that are in shared memory at a time.
#define HEAD_COLS 512

// Eight numbers of a row, from a column that is a multiple of eight on; or one.
struct RowF32 {
    enum { BYTES = 4 };
    DEVICE_MEMBER void load(const u8 *at, float (&x)[8]) {
        const float4 a = __ldcs((const float4 *)at), b = __ldcs((const float4 *)at + 1);
        x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
        x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
    }
    DEVICE_MEMBER float one(const u8 *at) {
        return __ldcs((const float *)at);
    }
};

struct RowF16 {
    enum { BYTES = 2 };
    DEVICE_MEMBER void load(const u8 *at, float (&x)[8]) {
        const uint4 words = __ldcs((const uint4 *)at);
        const u32 w[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            x[i] = half_to_float((u16)(w[i / 2] >> (16 * (i % 2))));
        }
    }
    DEVICE_MEMBER float one(const u8 *at) {
        return half_to_float(__ldcs((const u16 *)at));
    }
};

struct RowBF16 {
    enum { BYTES = 2 };
    DEVICE_MEMBER void load(const u8 *at, float (&x)[8]) {
        const uint4 words = __ldcs((const uint4 *)at);
        const u32 w[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            x[i] = bfloat_to_float((u16)(w[i / 2] >> (16 * (i % 2))));
        }
    }
    DEVICE_MEMBER float one(const u8 *at) {
        return bfloat_to_float(__ldcs((const u16 *)at));
    }
};

// The embedding of a row's token, times `scale`. A row that is not there gets zeros.
template <class ROW>
DEVICE void embed(const u8 *table, const Rows &rows, int cols, float scale, float *y, int row) {
    const bool there = rows.position[row] >= 0;
    const u64 token = there ? rows.token[row] : 0;
    for (int i = 8 * threadIdx.x; i < cols; i += 8 * EMBED_THREADS) {
        float x[8];
        ROW::load(table + (token * cols + i) * ROW::BYTES, x);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            y[(u64)row * cols + i + j] = there ? x[j] * scale : 0.0f;
        }
    }
}

// Logits, as the processor sums them up: sixteen strided sums, of which a thread has eight.
template <class ROW, int TOKENS>
DEVICE void head(const u8 *table, const float *x, float *logits, int rows, int cols, int tokens) {
    __shared__ float4 hidden[TOKENS][HEAD_COLS / 4];
    const int row = blockIdx.x * HEAD_ROWS + threadIdx.x / 2, part = threadIdx.x % 2;
    const int first = blockIdx.y * TOKENS;
    tokens = min(TOKENS, tokens - first);
    // Threads behind the last row compute it too, and drop it.
    const u8 *weights = table + (u64)min(row, rows - 1) * cols * ROW::BYTES;
    float sums[TOKENS][8] = {};
    for (int start = 0; start < cols; start += HEAD_COLS) {
        const int here = min(HEAD_COLS, cols - start);
        __syncthreads();
#pragma unroll
        for (int turn = 0; turn < (TOKENS * (HEAD_COLS / 4) + HEAD_THREADS - 1) / HEAD_THREADS; turn++) {
            const int i = turn * HEAD_THREADS + threadIdx.x;
            const int token = i / (HEAD_COLS / 4), at = i % (HEAD_COLS / 4);
            if (token < TOKENS && 4 * at < here) {
                const float4 zero = {0.0f, 0.0f, 0.0f, 0.0f};
                const float4 *from = (const float4 *)(x + (u64)(first + token) * cols + start) + at;
                hidden[token][at] = token < tokens ? *from : zero;
            }
        }
        __syncthreads();
#pragma unroll 4
        for (int col = 8 * part; col < here; col += LANES) {
            float w[8];
            ROW::load(weights + (u64)(start + col) * ROW::BYTES, w);
#pragma unroll
            for (int token = 0; token < TOKENS; token++) {
                const float4 a = hidden[token][col / 4], b = hidden[token][col / 4 + 1];
                const float h[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    sums[token][i] = fma(w[i], h[i], sums[token][i]);
                }
            }
        }
    }
#pragma unroll
    for (int token = 0; token < TOKENS; token++) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sums[token][i] = sums[token][i] + __shfl_xor_sync(ALL, sums[token][i], 1);
        }
#pragma unroll
        for (int half = 4; half; half /= 2) {
#pragma unroll
            for (int i = 0; i < half; i++) {
                sums[token][i] = sums[token][i] + sums[token][i + half];
            }
        }
        if (part == 0 && row < rows && token < tokens) {
            logits[(u64)(first + token) * rows + row] = sums[token][0];
        }
    }
}

#define HEAD_KERNELS(name, ROW)                                                                                        \
    KERNEL(EMBED_THREADS) embed_##name(const u8 *table, Rows rows, int cols, float scale, float *y) {                  \
        embed<ROW>(table, rows, cols, scale, y, blockIdx.x);                                                           \
    }                                                                                                                  \
    KERNEL_BLOCKS(HEAD_THREADS, 3)                                                                                     \
    gemv_head_##name(const u8 *table, const float *x, float *y, int rows, int cols, int tokens) {                      \
        head<ROW, 1>(table, x, y, rows, cols, tokens);                                                                 \
    }                                                                                                                  \
    KERNEL(HEAD_THREADS) gemm_head_##name(const u8 *table, const float *x, float *y, int rows, int cols, int tokens) { \
        head<ROW, 8>(table, x, y, rows, cols, tokens);                                                                 \
    }

HEAD_KERNELS(f32, RowF32)
HEAD_KERNELS(f16, RowF16)
HEAD_KERNELS(bf16, RowBF16)

// Rows that are there go on by one position, with these tokens.
KERNEL(EMBED_THREADS) step_advance(int *token, int *position, const int *next, int rows) {
    const int row = blockIdx.x * EMBED_THREADS + threadIdx.x;
    if (row < rows && position[row] >= 0) {
        token[row] = next[row];
        position[row]++;
    }
}

DEVICE void add(float *sum, const float *x, int n, int block) {
    const int i = block * EMBED_THREADS + threadIdx.x;
    if (i < n) {
        sum[i] = sum[i] + x[i];
    }
}

KERNEL(EMBED_THREADS) add_f32(float *sum, const float *x, int n) {
    add(sum, x, n, blockIdx.x);
}

KERNEL(EMBED_THREADS) gather_f32(const float *from, const u32 *at, float *to, int n) {
    const int i = blockIdx.x * EMBED_THREADS + threadIdx.x;
    if (i < n) {
        to[i] = from[at[i]];
    }
}

// The gate of a feed-forward network where both of its sides are there.
DEVICE void gate(float *gate, const float *up, int activation, int n, int block) {
    const int i = block * EMBED_THREADS + threadIdx.x;
    if (i < n) {
        gate[i] = gated(activation, gate[i], up[i]);
    }
}

KERNEL(EMBED_THREADS) gate_f32(float *x, const float *up, int activation, int n) {
    gate(x, up, activation, n, blockIdx.x);
}
