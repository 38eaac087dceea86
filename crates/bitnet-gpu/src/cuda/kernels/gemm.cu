// Many tokens: a block for 128 rows and some tokens, whose activations go through shared memory, three steps ahead.

#if __CUDA_ARCH__ >= 800

#define GEMM_THREADS 128
#define GEMM_WARPS (GEMM_THREADS / WARP)
#define STAGES 3
// Pieces of 16 bytes of a step of a token.
#define PIECES (STEP / 16)

extern __shared__ uint4 gemm_memory[];

DEVICE u32 shared_address(const void *at) {
    return (u32)__cvta_generic_to_shared(at);
}

// Copies 16 bytes while other work goes on, or makes them zeros.
DEVICE void copy_async(uint4 *to, const void *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 16 : 0));
}

DEVICE void copy_commit() {
    asm volatile("cp.async.commit_group;");
}

template <int STILL>
DEVICE void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(STILL) : "memory");
}

// Four matrices of 8 rows and 16 bytes, whose rows lie at the addresses of eight threads each.
DEVICE void load_matrices(u32 (&m)[4], const uint4 *at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared_address(at))
                 : "memory");
}

// Where a piece of a token is in a stage: in an order in which eight tokens' pieces are in different banks.
DEVICE int piece_at(int token, int piece) {
    return token * PIECES + (piece ^ token % PIECES);
}

// Asks for a step of the tokens from `first` on.
template <int TOKENS>
DEVICE void ask(const Product &p, int first, int step, uint4 *stage) {
#pragma unroll
    for (int turn = 0; turn < TOKENS * PIECES / GEMM_THREADS; turn++) {
        const int i = turn * GEMM_THREADS + threadIdx.x;
        const int token = i / PIECES, piece = i % PIECES;
        const bool there = first + token < p.tokens;
        const i8 *from = p.x + (u64)(there ? first + token : 0) * p.width + step * STEP + piece * 16;
        copy_async(stage + piece_at(token, piece), from, there);
    }
}

// A tile of a matrix; none if it has no weights.
struct Tile {
    Matrix m;
    int index;
};

DEVICE Tile tile_of(const Product &p, int index) {
    Tile t;
    t.m = find(p, index);
    t.index = index;
    if (index >= tiles(t.m)) {
        t.m.weights = 0;
    }
    return t;
}

// A warp has the same tile of the gate and of what it weighs.
struct Pair {
    Tile of[2];
};

DEVICE Pair gate_tiles(const Product &p, int index) {
    Pair pair = {{{p.of[0], index}, {p.of[1], index}}};
    if (index >= tiles(p.of[0])) {
        pair.of[0].m.weights = pair.of[1].m.weights = 0;
    }
    return pair;
}

DEVICE uint4 load_tile(const Tile &t, int steps, int step) {
    const uint4 nothing = {0, 0, 0, 0};
    return t.m.weights ? __ldg(t.m.weights + ((u64)t.index * steps + step) * WARP + lane_id()) : nothing;
}

// Sums of two tiles by `8 * N` tokens: for each eight tokens the four results of a thread.
template <int N>
DEVICE void multiply(const Product &p, const Tile (&of)[2], int (&sums)[2][N][4]) {
    const int steps = p.width / STEP, first = blockIdx.y * 8 * N, lane = lane_id();
    constexpr int STAGE = 8 * N * PIECES;
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) {
            ask<8 * N>(p, first, s, gemm_memory + s * STAGE);
        }
        copy_commit();
    }
    uint4 next[2] = {load_tile(of[0], steps, 0), load_tile(of[1], steps, 0)};
    for (int step = 0; step < steps; step++) {
        copy_wait<STAGES - 2>();
        __syncthreads();
        const int ahead = step + STAGES - 1;
        if (ahead < steps) {
            ask<8 * N>(p, first, ahead, gemm_memory + ahead % STAGES * STAGE);
        }
        copy_commit();
        const uint4 q[2] = {next[0], next[1]};
        if (step + 1 < steps) {
            next[0] = load_tile(of[0], steps, step + 1);
            next[1] = load_tile(of[1], steps, step + 1);
        }
        const uint4 *stage = gemm_memory + step % STAGES * STAGE;
#pragma unroll
        for (int plane = 0; plane < 4; plane++) {
            const int shift = 2 * plane;
            const u32 mask = 0x03030303u;
            u32 a[2][4];
#pragma unroll
            for (int t = 0; t < 2; t++) {
                a[t][0] = q[t].x >> shift & mask;
                a[t][1] = q[t].y >> shift & mask;
                a[t][2] = q[t].z >> shift & mask;
                a[t][3] = q[t].w >> shift & mask;
            }
#pragma unroll
            for (int n = 0; n < N; n += 2) {
                u32 b[4];
                const int token = 8 * n + lane / 16 * 8 + lane % 8;
                load_matrices(b, stage + piece_at(token, 2 * plane + lane / 8 % 2));
#pragma unroll
                for (int t = 0; t < 2; t++) {
                    mma_u8s8(sums[t][n], a[t][0], a[t][1], a[t][2], a[t][3], b[0], b[1]);
                    mma_u8s8(sums[t][n + 1], a[t][0], a[t][1], a[t][2], a[t][3], b[2], b[3]);
                }
            }
        }
    }
}

// Row in a tile, and token in eight, of result `i` of a thread.
DEVICE int result_row(int i) {
    return lane_id() / 4 + 8 * (i / 2);
}

DEVICE int result_token(int i) {
    return 2 * (lane_id() % 4) + i % 2;
}

// Writes what a thread has of the products of `T` tiles and `8 * N` tokens.
template <int T, int N>
DEVICE void put_products(const Product &p, const Tile (&of)[T], const int (&sums)[T][N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int token = (blockIdx.y * N + n) * 8 + result_token(i);
            if (token >= p.tokens) {
                continue;
            }
            const int x_sum = p.x_sum[token];
            const float x_scale = p.x_scale[token];
#pragma unroll
            for (int t = 0; t < T; t++) {
                const int row = TILE * of[t].index + result_row(i);
                if (of[t].m.weights && row < of[t].m.rows) {
                    put(p, of[t].m, token, row, scaled(sums[t][n][i], x_sum, x_scale, of[t].m.scale));
                }
            }
        }
    }
}

// The same of a tile of the gate and of that of what it weighs.
template <int N>
DEVICE void put_gated(const Product &p, int index, const int (&sums)[2][N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int token = (blockIdx.y * N + n) * 8 + result_token(i), row = TILE * index + result_row(i);
            if (token < p.tokens && row < p.of[0].rows) {
                const int x_sum = p.x_sum[token];
                const float x_scale = p.x_scale[token];
                const float gate = scaled(sums[0][n][i], x_sum, x_scale, p.of[0].scale);
                const float up = scaled(sums[1][n][i], x_sum, x_scale, p.of[1].scale);
                *result(p.of[0], token, row) = gated(p.activation, gate, up);
            }
        }
    }
}

template <int N>
DEVICE void gemm(const Product &p) {
    const int first = (blockIdx.x * GEMM_WARPS + warp_id()) * 2;
    const Tile of[2] = {tile_of(p, first), tile_of(p, first + 1)};
    int sums[2][N][4] = {};
    multiply<N>(p, of, sums);
    put_products(p, of, sums);
}

template <int N>
DEVICE void gemm_gate(const Product &p) {
    const int index = blockIdx.x * GEMM_WARPS + warp_id();
    int sums[2][N][4] = {};
    multiply<N>(p, gate_tiles(p, index).of, sums);
    put_gated(p, index, sums);
}

#define GEMM_KERNELS(tokens)                                                \
    KERNEL(GEMM_THREADS) gemm_i2s_mma_u8s8_##tokens(Product p) {           \
        gemm<tokens / 8>(p);                                                \
    }                                                                       \
    KERNEL(GEMM_THREADS) gemm_i2s_mma_u8s8_gate_##tokens(Product p) {      \
        gemm_gate<tokens / 8>(p);                                           \
    }

GEMM_KERNELS(16)
GEMM_KERNELS(32)
GEMM_KERNELS(64)

#endif
