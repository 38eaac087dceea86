// Attention of rows of one sequence that follow one another, as those of a prompt: keys and values are read once for all of them.
// What is computed is what attend.cu does, in the same order.

#define PREFILL_THREADS 128
// Queries of a block: of some rows, those that share keys and values.
#define QUERIES 32
// Positions that it looks at at a time.
#define GLANCE 32
#define GLANCE_BLOCKS (GLANCE / KV_BLOCK)
// So that what threads of a warp write lies in different banks, and four queries still begin at a multiple of 16 bytes.
#define QUERY_STRIDE (QUERIES + 4)
// A thread has four queries, and of each two scores, or twice four numbers of the result.
#define FOUR 4
#define PAIRS 2
#define HALF_HEAD 64
// Queries whose scores a warp makes weights.
#define WARP_QUERIES (QUERIES / (PREFILL_THREADS / WARP))

// Rows that are attended for together: from one on so many; none, if there is no such tile.
struct RowTile {
    int first;
    int count;
};

// The end of a block that has written its parts: the last one of a row and the heads that it is for joins them. `last` has room for each row.
template <int THREADS>
DEVICE void join_rows(const Attend &a, const Rows &rows, const Cache &cache, const RowTile &tile, u32 *last) {
    const int head = blockIdx.x, span = blockIdx.z;
    const u64 stride = (u64)gridDim.z * a.group * (cache.size + 2);
    __threadfence();
    __syncthreads();
    if (threadIdx.x < tile.count) {
        const int row = tile.first + threadIdx.x, spans = rows.position[row] / SPAN + 1;
        last[threadIdx.x] = 0;
        if (span < spans) {
            last[threadIdx.x] = atomicInc(a.counters + row * cache.kv_heads + head, spans - 1) == spans - 1;
        }
    }
    __syncthreads();
    for (int i = 0; i < tile.count; i++) {
        if (last[i]) {
            __threadfence();
            const int row = tile.first + i, spans = rows.position[row] / SPAN + 1;
            const u64 of = (u64)row * cache.kv_heads + head;
            join<THREADS>(a, cache.size, a.parts + of * stride, spans, a.out + of * a.group * cache.size);
        }
    }
}

extern __shared__ float4 prefill_memory[];

// What a block keeps in shared memory besides queries, keys and values.
struct Look {
    float4 weights[GLANCE][QUERY_STRIDE / FOUR]; // scores, then weights
    float4 shrink[GLANCE_BLOCKS][QUERIES / FOUR]; // what came before counts so much less from this block on
    int seen[QUERIES];                          // positions of the span
    float greatest[QUERIES];                    // score so far
    float sums[QUERIES][KV_BLOCK];              // of weights, of each lane of positions; in the end the first is that of all
    int wrong[QUERIES];                         // whether a score was not finite
    u32 last[QUERIES];                          // of each row, whether all of its parts are there
};

// Keys of some positions from the span on, [size, GLANCE]. Those behind the last are zeros.
template <class KV>
DEVICE void load_keys(const Cache &cache, int sequence, int head, int from, int here, float *to) {
    // Each thread has one position.
    const int i = threadIdx.x % GLANCE;
    const u8 *keys = i < here ? keys_at<KV>(cache, sequence, from + i, head) : 0;
    for (int dim = threadIdx.x / GLANCE; dim < cache.size; dim += PREFILL_THREADS / GLANCE) {
        to[dim * GLANCE + i] = keys ? KV::key(keys, dim, i % KV_BLOCK) : 0.0f;
    }
}

// Values of the same, [GLANCE, size].
template <class KV>
DEVICE void load_values(const Cache &cache, int sequence, int head, int from, int here, float *to) {
    for (int i = threadIdx.x; i < here * cache.size; i += PREFILL_THREADS) {
        const int at = i / cache.size, dim = i % cache.size;
        const u8 *values = keys_at<KV>(cache, sequence, from + at, head) + values_behind<KV>(cache);
        to[i] = KV::value(values, cache.size, dim, at % KV_BLOCK);
    }
}

// Scores of four queries and two positions of a thread: sums over the numbers of keys in order.
DEVICE void score_together(const float4 *q, const float *keys, int size, float scale, Look &look) {
    const int four = threadIdx.x / (GLANCE / PAIRS), pair = threadIdx.x % (GLANCE / PAIRS);
    float sum[PAIRS][FOUR] = {};
#pragma unroll 4
    for (int dim = 0; dim < size; dim++) {
        const float4 of = q[dim * (QUERY_STRIDE / FOUR) + four];
        const float2 key = *(const float2 *)(keys + dim * GLANCE + PAIRS * pair);
        const float queries[FOUR] = {of.x, of.y, of.z, of.w}, both[PAIRS] = {key.x, key.y};
#pragma unroll
        for (int i = 0; i < PAIRS; i++) {
#pragma unroll
            for (int j = 0; j < FOUR; j++) {
                sum[i][j] = fma(queries[j], both[i], sum[i][j]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        const float4 scores = {sum[i][0] * scale, sum[i][1] * scale, sum[i][2] * scale, sum[i][3] * scale};
        look.weights[PAIRS * pair + i][four] = scores;
    }
}

// Scores of a query to weights, relative to the greatest up to their block: a thread has a position.
DEVICE void soften_together(Look &look, int query, int start) {
    const int lane = lane_id(), seen = look.seen[query];
    float &at = ((float *)look.weights[lane])[query];
    const bool there = start + lane < seen;
    const float score = at;
    float most = there ? score : -INFINITE;
#pragma unroll
    for (int half = KV_BLOCK / 2; half; half /= 2) {
        most = fmaxf(most, __shfl_xor_sync(ALL, most, half));
    }
    float before = look.greatest[query], mine = before;
    float sum = look.sums[query][lane % KV_BLOCK];
    const bool wrong = __any_sync(ALL, there && !is_finite(score));
    float shrink[GLANCE_BLOCKS], now = before;
#pragma unroll
    for (int block = 0; block < GLANCE_BLOCKS; block++) {
        now = fmaxf(before, __shfl_sync(ALL, most, KV_BLOCK * block));
        shrink[block] = before > -INFINITE && now > before ? exp_of(before - now) : 1.0f;
        mine = lane / KV_BLOCK == block ? now : mine;
        before = now;
    }
    const float weight = there ? exp_of(score - mine) : 0.0f;
#pragma unroll
    for (int block = 0; block < GLANCE_BLOCKS; block++) {
        const int i = KV_BLOCK * block + lane % KV_BLOCK;
        const float here = __shfl_sync(ALL, weight, i);
        sum = sum * shrink[block];
        if (start + i < seen) {
            sum = sum + here;
        }
    }
    // All have read what is written now.
    __syncwarp();
    at = weight;
    if (lane < KV_BLOCK) {
        look.sums[query][lane] = sum;
    }
    if (lane == 0) {
        look.greatest[query] = now;
        look.wrong[query] |= wrong;
#pragma unroll
        for (int block = 0; block < GLANCE_BLOCKS; block++) {
            ((float *)look.shrink[block])[query] = shrink[block];
        }
    }
}

// Values by the weights of four queries, added to the sums of a thread. `WHOLE` says that each query sees all positions.
template <bool WHOLE>
DEVICE void weigh_together(
    const Look &look, const float *values, int size, int start, int here, const int (&seen)[FOUR], float (&sum)[PAIRS][FOUR][FOUR]) {
    const int four = threadIdx.x / (HALF_HEAD / FOUR), dim = threadIdx.x % (HALF_HEAD / FOUR) * FOUR;
    for (int block = 0; block * KV_BLOCK < here; block++) {
        const float4 shrink = look.shrink[block][four];
        const float less[FOUR] = {shrink.x, shrink.y, shrink.z, shrink.w};
#pragma unroll
        for (int pair = 0; pair < PAIRS; pair++) {
#pragma unroll
            for (int j = 0; j < FOUR; j++) {
#pragma unroll
                for (int d = 0; d < FOUR; d++) {
                    sum[pair][j][d] = sum[pair][j][d] * less[j];
                }
            }
        }
#pragma unroll 1
        for (int i = block * KV_BLOCK; i < min(here, (block + 1) * KV_BLOCK); i++) {
            const float4 weight = look.weights[i][four];
            const float by[FOUR] = {weight.x, weight.y, weight.z, weight.w};
#pragma unroll
            for (int pair = 0; pair < PAIRS; pair++) {
                if (dim + HALF_HEAD * pair < size) {
                    const float4 value = *(const float4 *)(values + i * size + dim + HALF_HEAD * pair);
                    const float of[FOUR] = {value.x, value.y, value.z, value.w};
#pragma unroll
                    for (int j = 0; j < FOUR; j++) {
                        // What is not seen may be anything.
                        if (WHOLE || start + i < seen[j]) {
#pragma unroll
                            for (int d = 0; d < FOUR; d++) {
                                sum[pair][j][d] = fma(by[j], of[d], sum[pair][j][d]);
                            }
                        }
                    }
                }
            }
        }
    }
}

// A block for the heads of some rows that share keys and values, and a span of positions of `gridDim.z`.
template <class KV>
DEVICE void attend_together(const Attend &a, const Rows &rows, const Cache &cache, const RowTile *tiles) {
    __shared__ Look look;
    const RowTile tile = tiles[blockIdx.y];
    const int head = blockIdx.x, span = blockIdx.z, size = cache.size, first = span * SPAN;
    // What all rows see, and what the last one does: they are in order.
    const int least = tile.count ? rows.position[tile.first] + 1 - first : 0;
    const int most = tile.count ? min(rows.position[tile.first + tile.count - 1] + 1 - first, SPAN) : 0;
    if (most <= 0) {
        return;
    }
    __builtin_assume(a.group > 0);
    __builtin_assume(size > 0 && size % FOUR == 0);
    const int sequence = rows.sequence[tile.first], queries = tile.count * a.group;
    float4 *q = prefill_memory;
    float *kv = (float *)(q + size * (QUERY_STRIDE / FOUR));
    for (int i = threadIdx.x; i < QUERIES * size; i += PREFILL_THREADS) {
        const int query = i / size, dim = i % size, row = tile.first + query / a.group;
        const u64 at = ((u64)row * cache.kv_heads + head) * a.group * size;
        ((float *)q)[dim * QUERY_STRIDE + query] = query < queries ? a.q[at + query % a.group * size + dim] : 0.0f;
    }
    for (int i = threadIdx.x; i < QUERIES; i += PREFILL_THREADS) {
        const int row = tile.first + i / a.group;
        look.seen[i] = i < queries ? min(rows.position[row] + 1 - first, SPAN) : 0;
        look.greatest[i] = -INFINITE;
        look.wrong[i] = 0;
    }
    for (int i = threadIdx.x; i < QUERIES * KV_BLOCK; i += PREFILL_THREADS) {
        look.sums[i / KV_BLOCK][i % KV_BLOCK] = 0.0f;
    }
    __syncthreads();
    const int four = threadIdx.x / (HALF_HEAD / FOUR), dim = threadIdx.x % (HALF_HEAD / FOUR) * FOUR;
    int seen[FOUR];
#pragma unroll
    for (int j = 0; j < FOUR; j++) {
        seen[j] = look.seen[FOUR * four + j];
    }
    float sum[PAIRS][FOUR][FOUR] = {};
    for (int start = 0; start < most; start += GLANCE) {
        const int here = min(GLANCE, most - start);
        load_keys<KV>(cache, sequence, head, first + start, here, kv);
        __syncthreads();
        score_together(q, kv, size, a.scale, look);
        __syncthreads();
        load_values<KV>(cache, sequence, head, first + start, here, kv);
#pragma unroll 1
        for (int i = 0; i < WARP_QUERIES; i++) {
            soften_together(look, warp_id() * WARP_QUERIES + i, start);
        }
        __syncthreads();
        if (start + GLANCE <= least) {
            weigh_together<true>(look, kv, size, start, here, seen, sum);
        } else {
            weigh_together<false>(look, kv, size, start, here, seen, sum);
        }
        __syncthreads();
    }
#pragma unroll 1
    for (int i = 0; i < WARP_QUERIES; i++) {
        const int query = warp_id() * WARP_QUERIES + i;
        const float all = tree(look.sums[query][lane_id() % KV_BLOCK]);
        __syncwarp();
        if (lane_id() == 0) {
            look.sums[query][0] = all;
        }
    }
    __syncthreads();
    const int width = size + 2;
    const u64 stride = (u64)gridDim.z * a.group * width;
#pragma unroll
    for (int j = 0; j < FOUR; j++) {
        const int query = FOUR * four + j;
        if (seen[j] <= 0) {
            continue;
        }
        const int row = tile.first + query / a.group;
        float *part = a.parts + ((u64)row * cache.kv_heads + head) * stride + (span * a.group + query % a.group) * width;
        const bool wrong = look.wrong[query];
#pragma unroll
        for (int pair = 0; pair < PAIRS; pair++) {
            if (dim + HALF_HEAD * pair < size) {
#pragma unroll
                for (int d = 0; d < FOUR; d++) {
                    part[dim + HALF_HEAD * pair + d] = wrong ? NOT_A_NUMBER : sum[pair][j][d];
                }
            }
        }
        if (dim == 0) {
            part[size] = wrong ? NOT_A_NUMBER : look.greatest[query];
            part[size + 1] = wrong ? NOT_A_NUMBER : look.sums[query][0];
        }
    }
    join_rows<PREFILL_THREADS>(a, rows, cache, tile, look.last);
}

#define PREFILL_KERNEL(name, KV)                                                                                       \
    KERNEL_BLOCKS(PREFILL_THREADS, 4)                                                                                  \
    attn_prefill_##name(Attend a, Rows rows, Cache cache, const RowTile *tiles) {                                      \
        attend_together<KV>(a, rows, cache, tiles);                                                                    \
    }

PREFILL_KERNEL(f32, KvF32)
PREFILL_KERNEL(f16, KvF16)
PREFILL_KERNEL(q8_0, KvQ8)
