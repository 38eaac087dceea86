// Many tokens on devices of compute capability 9.0: a block of four warps for 64 rows and 64 tokens, whose tensor cores take the
// activations from shared memory by themselves, while the threads make bytes of the weights of the next step.

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

#define GROUP_TOKENS 64
#define GROUP_STAGES 4
// Bytes of the activations of eight tokens of a step.
#define EIGHT_TOKENS (8 * STEP)

// In the order of `piece_at`, as tensor cores know it: from an address on that is a multiple of what eight tokens take.
extern __shared__ __align__(EIGHT_TOKENS) uint4 group_memory[];

// Codes of the weights of a step of a tile: for each plane what a thread has of 16 rows and 32 columns.
struct Codes {
    u32 plane[4][4];
};

DEVICE Codes codes_of(const uint4 &q) {
    Codes codes;
#pragma unroll
    for (int plane = 0; plane < 4; plane++) {
        const u32 mask = 0x03030303u;
        codes.plane[plane][0] = q.x >> 2 * plane & mask;
        codes.plane[plane][1] = q.y >> 2 * plane & mask;
        codes.plane[plane][2] = q.z >> 2 * plane & mask;
        codes.plane[plane][3] = q.w >> 2 * plane & mask;
    }
    return codes;
}

// What tensor cores are told of 32 columns of a stage: the order of pieces (1), the bytes from eight tokens to the next, and the
// address, both in pieces. The bytes between columns have no meaning in this order.
DEVICE u64 describe(const uint4 *stage, int plane) {
    const u32 at = (shared_address(stage) & 0x3ffff) / 16 + 2 * plane;
    return (u64)1 << 62 | (u64)(EIGHT_TOKENS / 16) << 32 | (u64)1 << 16 | at;
}

// Makes what threads have written to shared memory visible to tensor cores.
DEVICE void show_shared() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Keeps the compiler from moving what it does with a register past here.
DEVICE void hold(u32 &x) {
    asm volatile("" : "+r"(x));
}

DEVICE void hold(int &x) {
    asm volatile("" : "+r"(x));
}

template <typename T, int N>
DEVICE void hold(T (&all)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) {
        hold(all[i]);
    }
}

DEVICE void hold(Codes &codes) {
    hold(codes.plane);
}

#define FOUR_SUMS(n) "+r"(d[n][0]), "+r"(d[n][1]), "+r"(d[n][2]), "+r"(d[n][3])

// Begins to add 64 rows of codes, of which each warp has 16, times 32 columns of 64 tokens.
DEVICE void begin_wgmma_u8s8(int (&d)[8][4], const u32 (&a)[4], u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k32.s32.u8.s8 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31},"
                 "{%32,%33,%34,%35},%36,1;"
                 : FOUR_SUMS(0), FOUR_SUMS(1), FOUR_SUMS(2), FOUR_SUMS(3), FOUR_SUMS(4), FOUR_SUMS(5), FOUR_SUMS(6), FOUR_SUMS(7)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// Begins to add a step of `T` tiles of each warp. Nothing may touch sums and codes until they are waited for.
template <int T>
DEVICE void begin_step(int (&sums)[T][8][4], Codes (&codes)[T], const uint4 *stage) {
    hold(sums);
    hold(codes);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int plane = 0; plane < 4; plane++) {
#pragma unroll
        for (int t = 0; t < T; t++) {
            begin_wgmma_u8s8(sums[t], codes[t].plane[plane], describe(stage, plane));
        }
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int T>
DEVICE void end_step(int (&sums)[T][8][4], Codes (&codes)[T]) {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    hold(sums);
    hold(codes);
}

// Sums of `T` tiles of each warp by 64 tokens.
template <int T>
DEVICE void multiply_together(const Product &p, const Tile (&of)[T], int (&sums)[T][8][4]) {
    const int steps = p.width / STEP, first = blockIdx.y * GROUP_TOKENS;
    constexpr int STAGE = GROUP_TOKENS * PIECES;
#pragma unroll
    for (int s = 0; s < GROUP_STAGES - 1; s++) {
        if (s < steps) {
            ask<GROUP_TOKENS>(p, first, s, group_memory + s * STAGE);
        }
        copy_commit();
    }
    Codes codes[T];
    uint4 next[T];
#pragma unroll
    for (int t = 0; t < T; t++) {
        codes[t] = codes_of(load_tile(of[t], steps, 0));
        next[t] = load_tile(of[t], steps, steps > 1);
    }
#pragma unroll 2
    for (int step = 0; step < steps; step++) {
        copy_wait<GROUP_STAGES - 2>();
        show_shared();
        __syncthreads();
        begin_step(sums, codes, group_memory + step % GROUP_STAGES * STAGE);
        const int ahead = step + GROUP_STAGES - 1;
        if (ahead < steps) {
            ask<GROUP_TOKENS>(p, first, ahead, group_memory + ahead % GROUP_STAGES * STAGE);
        }
        copy_commit();
        Codes then[T];
#pragma unroll
        for (int t = 0; t < T; t++) {
            then[t] = codes_of(next[t]);
            if (step + 2 < steps) {
                next[t] = load_tile(of[t], steps, step + 2);
            }
        }
        end_step(sums, codes);
#pragma unroll
        for (int t = 0; t < T; t++) {
            codes[t] = then[t];
        }
    }
}

KERNEL(GEMM_THREADS) gemm_i2s_wgmma_s8(Product p) {
    const Tile of[1] = {tile_of(p, blockIdx.x * GEMM_WARPS + warp_id())};
    int sums[1][8][4] = {};
    multiply_together(p, of, sums);
    put_products(p, of, sums);
}

KERNEL(GEMM_THREADS) gemm_i2s_wgmma_gate_s8(Product p) {
    const int index = blockIdx.x * GEMM_WARPS + warp_id();
    int sums[2][8][4] = {};
    multiply_together(p, gate_tiles(p, index).of, sums);
    put_gated(p, index, sums);
}

#endif
