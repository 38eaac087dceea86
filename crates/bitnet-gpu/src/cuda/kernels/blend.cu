// Attention of rows of one sequence by products of numbers of 16 bits, on tensor cores: sums are of single precision. What comes of
// a row is the same with whatever rows it is taken, if what they see is finite; it is not what attend.cu gives, to the bit.

#if __CUDA_ARCH__ >= 800

#define BLEND_THREADS 128
// Queries of a block, of which each warp has sixteen, and of a thread's results two.
#define BLEND_QUERIES (BLEND_THREADS / WARP * 16)
#define MINE 2
// Positions at a time, and how many times it has them: it multiplies by some while others come.
#define BLEND_GLANCE 32
#define BLEND_STAGES 2
// The greatest head, in steps of sixteen numbers.
#define BLEND_STEPS 8
// Numbers behind each row in shared memory, so that eight rows are in different banks.
#define BLEND_PAD 8
#define KEY_STRIDE (BLEND_GLANCE + BLEND_PAD)

extern __shared__ uint4 blend_memory[];

// Half precision, of two numbers for each of single precision: what one loses, the other has.
struct Halves {
    enum { PARTS = 2 };
    DEVICE_MEMBER u32 pack(float low, float high) {
        u32 y;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
        return y;
    }
    DEVICE_MEMBER u32 of_stored(u32 halves) {
        return halves;
    }
    DEVICE_MEMBER void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
};

// Brain floats, one for each number, also of those that are stored in half precision.
struct BFloats {
    enum { PARTS = 1 };
    DEVICE_MEMBER u32 pack(float low, float high) {
        u32 y;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
        return y;
    }
    DEVICE_MEMBER u32 of_stored(u32 halves) {
        return pack(half_to_float((u16)halves), half_to_float((u16)(halves >> 16)));
    }
    DEVICE_MEMBER void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
};

// Register `i` of the left fragments of two numbers of a row.
template <class T>
DEVICE void split(float low, float high, int i, u32 (&parts)[T::PARTS][4]) {
    parts[0][i] = T::pack(low, high);
    if (T::PARTS == 2) {
        low = low - half_to_float((u16)parts[0][i]);
        high = high - half_to_float((u16)(parts[0][i] >> 16));
        parts[T::PARTS - 1][i] = T::pack(low, high);
    }
}

// The right fragments of sixteen rows of sixteen columns in shared memory: two of eight columns each.
template <class T>
DEVICE void load_columns(u32 (&b)[4], const u16 *from, int stride) {
    const u16 *at = from + lane_id() % 16 * stride + lane_id() / 16 * 8;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(shared_address(at))
                 : "memory");
#pragma unroll
    for (int i = 0; i < 4; i++) {
        b[i] = T::of_stored(b[i]);
    }
}

// Asks for keys [size, KEY_STRIDE] and values [BLEND_GLANCE, size + BLEND_PAD] of some positions of `most`; behind these are zeros.
DEVICE void ask_positions(const Cache &cache, int sequence, int first, int start, int most, u16 *keys) {
    const int size = cache.size, head = blockIdx.x;
    u16 *values = keys + size * KEY_STRIDE;
    {
        // Each thread has eight positions.
        const int piece = threadIdx.x % (BLEND_GLANCE / 8), at = start + 8 * piece;
        const bool there = at < most;
        const u8 *from = keys_at<KvF16>(cache, sequence, first + (there ? at : 0), head) + at % KV_BLOCK * 2;
        for (int dim = threadIdx.x / (BLEND_GLANCE / 8); dim < size; dim += BLEND_THREADS / (BLEND_GLANCE / 8)) {
            copy_async((uint4 *)(keys + dim * KEY_STRIDE + 8 * piece), from + dim * KV_BLOCK * 2, there);
        }
    }
    const int pieces = size / 8;
    for (int i = threadIdx.x; i < BLEND_GLANCE * pieces; i += BLEND_THREADS) {
        const int at = start + i / pieces, piece = i % pieces;
        const bool there = at < most;
        const u8 *from = keys_at<KvF16>(cache, sequence, first + (there ? at : 0), head) + values_behind<KvF16>(cache);
        copy_async((uint4 *)(values + i / pieces * (size + BLEND_PAD) + 8 * piece), from + (at % KV_BLOCK * size + 8 * piece) * 2, there);
    }
}

// What a thread has of the attention of its two queries.
struct Blend {
    float sum[2 * BLEND_STEPS][4]; // of values: of each eight numbers of a head, two of each query
    float weights[MINE];           // their sum
    float greatest[MINE];          // score so far
    bool wrong[MINE];              // whether a score was not finite
};

// Scores of positions of a stage to weights, relative to the greatest so far; what came before counts so much less.
DEVICE void soften_scores(float (&scores)[BLEND_GLANCE / 8][4], const int (&seen)[MINE], int start, float scale, Blend &so) {
#pragma unroll
    for (int r = 0; r < MINE; r++) {
        float most = -INFINITE;
#pragma unroll
        for (int n = 0; n < BLEND_GLANCE / 8; n++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int at = start + 8 * n + 2 * (lane_id() % 4) + i;
                const float score = scores[n][2 * r + i] * scale;
                const bool there = at < seen[r];
                so.wrong[r] |= there && !is_finite(score);
                scores[n][2 * r + i] = there ? score : -INFINITE;
                most = fmaxf(most, scores[n][2 * r + i]);
            }
        }
        most = fmaxf(most, __shfl_xor_sync(ALL, most, 1));
        most = fmaxf(most, __shfl_xor_sync(ALL, most, 2));
        const float before = so.greatest[r], now = fmaxf(before, most);
        const float shrink = before > -INFINITE && now > before ? exp_of(before - now) : 1.0f;
        so.greatest[r] = now;
        so.weights[r] = so.weights[r] * shrink;
#pragma unroll
        for (int n = 0; n < BLEND_GLANCE / 8; n++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float &at = scores[n][2 * r + i];
                at = at > -INFINITE ? exp_of(at - now) : 0.0f;
                so.weights[r] = so.weights[r] + at;
            }
        }
#pragma unroll
        for (int n = 0; n < 2 * BLEND_STEPS; n++) {
            so.sum[n][2 * r] = so.sum[n][2 * r] * shrink;
            so.sum[n][2 * r + 1] = so.sum[n][2 * r + 1] * shrink;
        }
    }
}

// A stage of positions: scores, weights, and values by these.
template <class T>
DEVICE void blend_stage(
    const u16 *keys, int size, const u32 (&q)[BLEND_STEPS][T::PARTS][4], const int (&seen)[MINE], int start, float scale, Blend &so) {
    const u16 *values = keys + size * KEY_STRIDE;
    float scores[BLEND_GLANCE / 8][4] = {};
#pragma unroll
    for (int step = 0; step < BLEND_STEPS; step++) {
        if (16 * step < size) {
#pragma unroll
            for (int n = 0; n < BLEND_GLANCE / 8; n += 2) {
                u32 b[4];
                load_columns<T>(b, keys + 16 * step * KEY_STRIDE + 8 * n, KEY_STRIDE);
#pragma unroll
                for (int part = 0; part < T::PARTS; part++) {
                    T::multiply(scores[n], q[step][part], b[0], b[1]);
                    T::multiply(scores[n + 1], q[step][part], b[2], b[3]);
                }
            }
        }
    }
    soften_scores(scores, seen, start, scale, so);
#pragma unroll
    for (int n = 0; n < BLEND_GLANCE / 8; n += 2) {
        u32 weights[T::PARTS][4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float *two = scores[n + i / 2] + i % 2 * 2;
            split<T>(two[0], two[1], i, weights);
        }
#pragma unroll
        for (int step = 0; step < BLEND_STEPS; step++) {
            if (16 * step < size) {
                u32 b[4];
                load_columns<T>(b, values + 8 * n * (size + BLEND_PAD) + 16 * step, size + BLEND_PAD);
#pragma unroll
                for (int part = 0; part < T::PARTS; part++) {
                    T::multiply(so.sum[2 * step], weights[part], b[0], b[1]);
                    T::multiply(so.sum[2 * step + 1], weights[part], b[2], b[3]);
                }
            }
        }
    }
}

// A block for the heads of some rows that share keys and values, and a span of positions of `gridDim.z`.
template <class T>
DEVICE void blend(const Attend &a, const Rows &rows, const Cache &cache, const RowTile *tiles) {
    __shared__ u32 last[BLEND_QUERIES];
    const RowTile tile = tiles[blockIdx.y];
    const int head = blockIdx.x, span = blockIdx.z, size = cache.size, first = span * SPAN;
    const int most = tile.count ? min(rows.position[tile.first + tile.count - 1] + 1 - first, SPAN) : 0;
    if (most <= 0) {
        return;
    }
    __builtin_assume(a.group > 0);
    __builtin_assume(size > 0 && size % 16 == 0);
    const int sequence = rows.sequence[tile.first], queries = tile.count * a.group;
    u64 place[MINE];
    int seen[MINE];
#pragma unroll
    for (int r = 0; r < MINE; r++) {
        const int query = 16 * warp_id() + 8 * r + lane_id() / 4, row = tile.first + query / a.group;
        const bool there = query < queries;
        place[r] = there ? ((u64)row * cache.kv_heads + head) * a.group + query % a.group : 0;
        seen[r] = there ? min(rows.position[row] + 1 - first, SPAN) : 0;
    }
    u32 q[BLEND_STEPS][T::PARTS][4];
#pragma unroll
    for (int step = 0; step < BLEND_STEPS; step++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int dim = 16 * step + i / 2 * 8 + 2 * (lane_id() % 4);
            float2 both = {0.0f, 0.0f};
            if (seen[i % 2] > 0 && 16 * step < size) {
                both = *(const float2 *)(a.q + place[i % 2] * size + dim);
            }
            split<T>(both.x, both.y, i, q[step]);
        }
    }
    Blend so = {};
    so.greatest[0] = so.greatest[1] = -INFINITE;
    u16 *memory = (u16 *)blend_memory;
    const int stage = size * KEY_STRIDE + BLEND_GLANCE * (size + BLEND_PAD);
    ask_positions(cache, sequence, first, 0, most, memory);
    copy_commit();
    for (int start = 0, nth = 0; start < most; start += BLEND_GLANCE, nth++) {
        if (start + BLEND_GLANCE < most) {
            ask_positions(cache, sequence, first, start + BLEND_GLANCE, most, memory + (nth + 1) % BLEND_STAGES * stage);
        }
        copy_commit();
        copy_wait<BLEND_STAGES - 1>();
        __syncthreads();
        if (16 * warp_id() < queries) {
            blend_stage<T>(memory + nth % BLEND_STAGES * stage, size, q, seen, start, a.scale, so);
        }
        __syncthreads();
    }
    const u64 stride = (u64)gridDim.z * a.group * (size + 2);
#pragma unroll
    for (int r = 0; r < MINE; r++) {
        float sum = so.weights[r];
        int wrong = so.wrong[r];
#pragma unroll
        for (int by = 1; by < 4; by *= 2) {
            sum = sum + __shfl_xor_sync(ALL, sum, by);
            wrong |= __shfl_xor_sync(ALL, wrong, by);
        }
        if (seen[r] <= 0) {
            continue;
        }
        float *part = a.parts + place[r] / a.group * stride + (u64)(span * a.group + place[r] % a.group) * (size + 2);
#pragma unroll
        for (int n = 0; n < 2 * BLEND_STEPS; n++) {
            if (8 * n < size) {
                const int dim = 8 * n + 2 * (lane_id() % 4);
                part[dim] = wrong ? NOT_A_NUMBER : so.sum[n][2 * r];
                part[dim + 1] = wrong ? NOT_A_NUMBER : so.sum[n][2 * r + 1];
            }
        }
        if (lane_id() % 4 == 0) {
            part[size] = wrong ? NOT_A_NUMBER : so.greatest[r];
            part[size + 1] = wrong ? NOT_A_NUMBER : sum;
        }
    }
    join_rows<BLEND_THREADS>(a, rows, cache, tile, last);
}

KERNEL_BLOCKS(BLEND_THREADS, 2) attn_prefill_mma_f16(Attend a, Rows rows, Cache cache, const RowTile *tiles) {
    blend<Halves>(a, rows, cache, tiles);
}

KERNEL_BLOCKS(BLEND_THREADS, 2) attn_prefill_mma_bf16(Attend a, Rows rows, Cache cache, const RowTile *tiles) {
    blend<BFloats>(a, rows, cache, tiles);
}

#endif
