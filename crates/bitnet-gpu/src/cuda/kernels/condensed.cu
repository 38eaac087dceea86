// The greatest logits from a fraction of the bytes of the output layer, exactly.
//
// Beside the rows stands a copy of 8 bits a number, with what each row loses. A hidden state, in 15 bits, is multiplied by the
// copy: whole numbers, exact. By Cauchy and Schwarz the logit of a row is off by at most the norm of what the copy lost times that of
// the hidden state, and something for roundings: so each logit is known to lie between two numbers. The last of as many of
// the lower ones as are asked for is a floor; rows whose upper one is not below it are multiplied as the whole output layer is, to the
// same bits. The others are out.
//
// The lower ones are not all looked at, but the greatest of each tile of sixteen rows: of different rows, so any of them make a
// floor, if one that is a little lower.
//
// Rows that are not finite, or so great or small that products with them might not be normal numbers, cannot be bounded: they are
// always multiplied. With a hidden state of that kind all are.

#define SCAN_THREADS 256
#define SCAN_WARPS (SCAN_THREADS / WARP)
// Columns of hidden states in shared memory at a time, and such steps of columns as an instruction multiplies.
#define SCAN_COLS 256
#define SCAN_STEP 32
#define SCAN_STEPS (SCAN_COLS / SCAN_STEP)
// What its numbers are multiplied by in the greater of the two bytes that a hidden state has for each.
#define HIGH 128

// What is known of a row, or of a hidden state.
struct Bounds {
    float scale; // of a number of its bytes
    float norm;  // of its copy, or of the hidden state; infinite where there is no knowing
    float lost;  // the norm of what the bytes lose
    float rounding; // of a hidden state: what roundings change, relative to the product of the norms
};

// What is lost is a sum that is rounded as many times as it has terms, at most a few thousand in a lane.
#define UP 1.001f
// So much of a norm may be lost of squares that are no normal numbers.
#define LEAST 1e-18f

// Whether products with something of this norm are bounded; no number is not.
DEVICE float usual(float norm) {
    return norm == 0.0f || (norm >= 1e-12f && norm <= 1e12f) ? norm : INFINITE;
}

DEVICE float norm_of(float squares) {
    return __fsqrt_rn(squares) * UP;
}

// Where the word of a row from a column on is: as tensor cores take them, sixteen bytes for each thread of a warp, which are of
// rows g and g + 8, from columns 4 t and 16 + 4 t on.
DEVICE u64 word_of(int row, int col, int steps) {
    const int lane = 4 * (row % 8) + col % 16 / 4;
    const int word = 2 * (col % SCAN_STEP / 16) + row % TILE / 8;
    return (((u64)(row / TILE) * steps + col / SCAN_STEP) * WARP + lane) * 4 + word;
}

// The copy of a table. A warp has a row; rows behind the last are zeros.
template <class ROW>
DEVICE void condense(const u8 *table, u32 *codes, Bounds *bounds, int rows, int cols) {
    const int row = blockIdx.x * SCAN_WARPS + warp_id();
    const bool there = row < rows;
    const u8 *weights = table + (u64)min(row, rows - 1) * cols * ROW::BYTES;
    float most = 0.0f, squares = 0.0f, lost = 0.0f;
    for (int col = 8 * lane_id(); col < cols; col += 8 * WARP) {
        float w[8];
        ROW::load(weights + (u64)col * ROW::BYTES, w);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            most = fmaxf(most, fabsf(w[i]));
            squares = fma(w[i], w[i], squares);
        }
    }
    most = warp_max(most);
    const float norm = usual(norm_of(warp_sum(squares)));
    // What cannot be bounded is not looked at.
    const float scale = there && norm < INFINITE ? __fdiv_rn(most, 127.0f) : 0.0f;
    const float inverse = scale > 0.0f ? __fdiv_rn(1.0f, scale) : 0.0f;
    for (int col = 8 * lane_id(); col < cols; col += 8 * WARP) {
        float w[8];
        ROW::load(weights + (u64)col * ROW::BYTES, w);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u32 word = 0;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float x = w[4 * half + i];
                const float q = scale > 0.0f ? fminf(fmaxf(rintf(x * inverse), -127.0f), 127.0f) : 0.0f;
                const float left = fma(-scale, q, x);
                lost = fma(left, left, lost);
                word |= (u32)(u8)(int)q << (8 * i);
            }
            codes[word_of(row, col + 4 * half, cols / SCAN_STEP)] = word;
        }
    }
    lost = norm_of(warp_sum(lost)) + LEAST;
    if (lane_id() == 0 && there) {
        const Bounds of = {scale, norm + lost, lost, 0.0f};
        bounds[row] = of;
    }
}

// A hidden state: the bytes of its numbers, first the greater ones of all, then the others.
KERNEL(SCAN_THREADS) head_quant_i8x2(const float *x, u8 *bytes, Bounds *bounds, int cols) {
    __shared__ float buffer[3][SCAN_THREADS / WARP];
    x += (u64)blockIdx.x * cols;
    bytes += (u64)blockIdx.x * 2 * cols;
    float most = 0.0f, squares = 0.0f, lost = 0.0f;
    for (int i = threadIdx.x; i < cols; i += SCAN_THREADS) {
        most = fmaxf(most, fabsf(x[i]));
        squares = fma(x[i], x[i], squares);
    }
    most = block_max<SCAN_THREADS>(most, buffer[0]);
    const float norm = usual(norm_of(block_sum<SCAN_THREADS>(squares, buffer[1])));
    const float scale = norm < INFINITE ? __fdiv_rn(most, 127.0f * HIGH) : 0.0f;
    const float inverse = scale > 0.0f ? __fdiv_rn(1.0f, scale) : 0.0f;
    for (int i = threadIdx.x; i < cols; i += SCAN_THREADS) {
        const float most = 127.0f * HIGH;
        const float q = scale > 0.0f ? fminf(fmaxf(rintf(x[i] * inverse), -most), most) : 0.0f;
        const float left = fma(-scale, q, x[i]);
        lost = fma(left, left, lost);
        const int high = ((int)q + HIGH / 2) >> 7;
        bytes[i] = (u8)high;
        bytes[cols + i] = (u8)((int)q - HIGH * high);
    }
    lost = norm_of(block_sum<SCAN_THREADS>(lost, buffer[2])) + LEAST;
    if (threadIdx.x == 0) {
        // Each sum adds one rounding for each of its terms, of which a lane of the exact product has a sixteenth.
        const Bounds of = {scale, norm, lost, (float)(cols / LANES + 64) * 1.1920929e-7f};
        bounds[blockIdx.x] = of;
    }
}

struct Scan {
    const uint4 *codes;   // [rows / 16, cols / 32, 32], as word_of says
    const Bounds *rows_of;
    const u8 *x;          // [tokens, 2, cols]
    const Bounds *tokens_of;
    const u32 *only;      // as of Select
    float *most;          // [tokens, rows]: what logits are at most
    float *least;         // [tokens, rows / 16]: what the greatest logit that counts of a tile is at least
    int rows;
    int cols;
    int tokens;
};

// How far a product with the copy can be from the logit.
DEVICE float bound(const Bounds &row, const Bounds &token) {
    const float x = token.norm + token.lost;
    return (row.lost * token.norm + row.norm * (token.lost + token.rounding * x)) * UP;
}

// Sums of a tile by eight tokens, of the greater bytes and of the others: as tensor cores give them, of rows g and g + 8 and tokens
// 2 t and 2 t + 1.
struct Sums {
    int of[2][4];
};

// What these tell about the tile.
DEVICE void scanned(const Scan &s, int tile, int first, const Sums &sums) {
    const int lane = lane_id();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int token = first + 2 * (lane % 4) + i;
        const bool there = token < s.tokens;
        const Bounds of = s.tokens_of[there ? token : 0];
        const u32 *only = bits_of(s.only, s.rows, there ? token : 0);
        float least = -INFINITE;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = TILE * tile + lane / 4 + 8 * half;
            if (row < s.rows && there) {
                const Bounds of_row = s.rows_of[row];
                const float sum = fma((float)HIGH, (float)sums.of[0][2 * half + i], (float)sums.of[1][2 * half + i]);
                const float product = sum * (of_row.scale * of.scale), off = bound(of_row, of);
                const bool known = is_finite(product + off);
                s.most[(u64)token * s.rows + row] = known ? product + off : INFINITE;
                if (known && counts(only, row)) {
                    least = fmaxf(least, product - off);
                }
            }
        }
#pragma unroll
        for (int other = 4; other < WARP; other *= 2) {
            least = fmaxf(least, __shfl_xor_sync(ALL, least, other));
        }
        if (lane < 4 && there) {
            s.least[(u64)token * ((s.rows + TILE - 1) / TILE) + tile] = least;
        }
    }
}

DEVICE void mma_s8s8(int (&d)[4], uint4 a, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

DEVICE int dp4a_s8s8(u32 a, u32 b, int sum) {
    int y;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(sum));
    return y;
}

// Hidden states in shared memory, padded so that the threads of a warp reach different banks.
#define SCAN_WORDS (SCAN_COLS / 4 + 4)

struct ByMma {
    typedef Sums All;
    // A step of columns of a tile, by eight tokens.
    DEVICE_MEMBER void step(All &sums, uint4 q, const u32 (*x)[2][SCAN_WORDS], int at, int) {
        const int lane = lane_id();
#pragma unroll
        for (int part = 0; part < 2; part++) {
            const u32 *of = x[lane / 4][part] + at + lane % 4;
            mma_s8s8(sums.of[part], q, of[0], of[4]);
        }
    }
    DEVICE_MEMBER Sums end(const All &sums) {
        return sums;
    }
};

struct ByDp4a {
    struct All {
        int of[2][2][8];
    };
    DEVICE_MEMBER void step(All &sums, uint4 q, const u32 (*x)[2][SCAN_WORDS], int at, int tokens) {
#pragma unroll
        for (int token = 0; token < 8; token++) {
            if (token < tokens) {
#pragma unroll
                for (int part = 0; part < 2; part++) {
                    const u32 *of = x[token][part] + at + lane_id() % 4;
                    const u32 low = of[0], high = of[4];
                    int &upper = sums.of[part][0][token], &lower = sums.of[part][1][token];
                    upper = dp4a_s8s8(q.z, high, dp4a_s8s8(q.x, low, upper));
                    lower = dp4a_s8s8(q.w, high, dp4a_s8s8(q.y, low, lower));
                }
            }
        }
    }
    DEVICE_MEMBER Sums end(const All &sums) {
        Sums all;
#pragma unroll
        for (int part = 0; part < 2; part++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
#pragma unroll
                for (int token = 0; token < 8; token++) {
                    int sum = sums.of[part][half][token];
                    sum += __shfl_xor_sync(ALL, sum, 1);
                    sum += __shfl_xor_sync(ALL, sum, 2);
                    int &to = all.of[part][2 * half + token % 2];
                    to = token < 2 || lane_id() % 4 == token / 2 ? sum : to;
                }
            }
        }
        return all;
    }
};

template <class BY, int EIGHTS>
DEVICE void scan(const Scan &s) {
    __shared__ u32 x[8 * EIGHTS][2][SCAN_WORDS];
    const int lane = lane_id(), tiles = (s.rows + TILE - 1) / TILE, steps = s.cols / SCAN_STEP;
    const int tile = blockIdx.x * SCAN_WARPS + warp_id(), first = blockIdx.y * 8 * EIGHTS;
    // Warps behind the last tile multiply it too, and drop it.
    const uint4 *codes = s.codes + (u64)min(tile, tiles - 1) * steps * WARP + lane;
    typename BY::All sums[EIGHTS] = {};
    for (int start = 0; start < steps; start += SCAN_STEPS) {
        uint4 q[SCAN_STEPS];
#pragma unroll
        for (int i = 0; i < SCAN_STEPS; i++) {
            const uint4 none = {};
            q[i] = start + i < steps ? __ldcs(codes + (u64)(start + i) * WARP) : none;
        }
        __syncthreads();
        for (int i = threadIdx.x; i < 8 * EIGHTS * 2 * (SCAN_COLS / 4); i += SCAN_THREADS) {
            const int part = i / (SCAN_COLS / 4), at = i % (SCAN_COLS / 4), col = start * SCAN_STEP + 4 * at;
            const bool there = first + part / 2 < s.tokens && col < s.cols;
            const u8 *from = s.x + ((u64)first * 2 + part) * s.cols + col;
            x[part / 2][part % 2][at] = there ? *(const u32 *)from : 0;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < SCAN_STEPS; i++) {
#pragma unroll
            for (int eight = 0; eight < EIGHTS; eight++) {
                BY::step(sums[eight], q[i], x + 8 * eight, SCAN_STEP / 4 * i, s.tokens - first);
            }
        }
    }
    if (tile < tiles) {
#pragma unroll
        for (int eight = 0; eight < EIGHTS; eight++) {
            scanned(s, tile, first + 8 * eight, BY::end(sums[eight]));
        }
    }
}

KERNEL(SCAN_THREADS) gemv_head_i8_dp4a(Scan s) {
    scan<ByDp4a, 1>(s);
}

#if __CUDA_ARCH__ >= 800
KERNEL(SCAN_THREADS) gemv_head_i8_mma(Scan s) {
    scan<ByMma, 1>(s);
}

KERNEL(SCAN_THREADS) gemm_head_i8_mma(Scan s) {
    scan<ByMma, 8>(s);
}
#endif

// The floor of each token, as a key: what the last of so many of the greatest logits is at least.
KERNEL(SELECT_THREADS) head_floor(const float *least, const int *count, u32 *floor, int *listed, int tiles) {
    const int token = blockIdx.x;
    const float *of = least + (u64)token * tiles;
    const auto look = [&](int i, u32 &key) {
        key = key_of(of[i]);
        return true;
    };
    const u32 key = least_of(look, tiles, count[token]);
    if (threadIdx.x == 0) {
        floor[token] = key;
        listed[token] = 0;
    }
}

// A row by a hidden state, as the whole output layer is multiplied: sixteen strided sums. Each half of a warp has one; its first
// thread gets the result.
template <class ROW>
DEVICE float exact(const u8 *weights, const float *x, int cols) {
    float sum = 0.0f;
#pragma unroll 16
    for (int col = threadIdx.x % LANES; col < cols; col += LANES) {
        sum = fma(ROW::one(weights + (u64)col * ROW::BYTES), x[col], sum);
    }
    return tree(sum);
}

struct Rerank {
    const u8 *table;
    const float *x;   // [tokens, cols]
    float *logits;    // [tokens, rows]: what they are at most; becomes what they are, or less than all where they are below the floor
    const u32 *floor; // [tokens]
    const u32 *only;  // as of Select
    int *listed;      // [tokens]: how many are not
    u32 *token;       // [tokens, most]: which these are
    int rows;
    int cols;
    int most;
};

// A warp has 32 rows.
template <class ROW>
DEVICE void rerank(const Rerank &r) {
    const int token = blockIdx.y, lane = lane_id();
    const int first = (blockIdx.x * SCAN_WARPS + warp_id()) * WARP, row = first + lane;
    float *logits = r.logits + (u64)token * r.rows;
    const bool there = row < r.rows && counts(bits_of(r.only, r.rows, token), row);
    const bool may = there && key_of(logits[row]) >= r.floor[token];
    if (row < r.rows && !may) {
        logits[row] = -INFINITE;
    }
    for (u32 left = __ballot_sync(ALL, may); left;) {
        const int one = __ffs(left) - 1;
        left &= left - 1;
        const int other = left ? __ffs(left) - 1 : one;
        left &= left - 1;
        const int mine = first + (lane < LANES ? one : other);
        const float logit = exact<ROW>(r.table + (u64)mine * r.cols * ROW::BYTES, r.x + (u64)token * r.cols, r.cols);
        if (lane == 0 || (lane == LANES && other != one)) {
            logits[mine] = logit;
            const int at = atomicAdd(r.listed + token, 1);
            if (at < r.most) {
                r.token[(u64)token * r.most + at] = mine;
            }
        }
    }
}

// Logits at places among all, each by half a warp.
template <class ROW>
DEVICE void logits_at(const u8 *table, const float *x, const u32 *at, float *to, int n, int rows, int cols) {
    const int i = (blockIdx.x * SCAN_THREADS + threadIdx.x) / LANES;
    // Those behind the last place compute it too, and drop it.
    const u32 place = at[min(i, n - 1)], token = place / rows, row = place % rows;
    const float logit = exact<ROW>(table + (u64)row * cols * ROW::BYTES, x + (u64)token * cols, cols);
    if (threadIdx.x % LANES == 0 && i < n) {
        to[i] = logit;
    }
}

#define CONDENSED_KERNELS(name, ROW)                                                                                   \
    KERNEL(SCAN_THREADS) head_condense_##name(const u8 *table, u32 *codes, Bounds *bounds, int rows, int cols) {       \
        condense<ROW>(table, codes, bounds, rows, cols);                                                               \
    }                                                                                                                  \
    KERNEL(SCAN_THREADS) head_rerank_##name(Rerank r) {                                                                \
        rerank<ROW>(r);                                                                                                \
    }                                                                                                                  \
    KERNEL(SCAN_THREADS)                                                                                               \
    head_rerank_at_##name(const u8 *table, const float *x, const u32 *at, float *to, int n, int rows, int cols) {      \
        logits_at<ROW>(table, x, at, to, n, rows, cols);                                                               \
    }

CONDENSED_KERNELS(f32, RowF32)
CONDENSED_KERNELS(f16, RowF16)
CONDENSED_KERNELS(bf16, RowBF16)
