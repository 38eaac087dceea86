// Products of ternary matrices with rows of 8-bit activations: what their kernels share.
//
// A matrix lies in tiles of 16 rows and 128 columns, 16 bytes for each thread of a warp, in the order in which tensor cores
// take them: two bits at 2p of byte b of word j of thread (g, t) = (lane / 4, lane % 4) are weight + 1 of row
// g + 8 (j % 2), column 32 p + 16 (j / 2) + 4 t + b. Columns behind the last are zeros, that is ones.

struct Matrix {
    const uint4 *weights; // [rows / 16, width / 128, 32]
    float *y;             // [tokens, rows]
    float scale;
    int rows;
};

struct Product {
    Matrix of[3];  // those behind the last have no rows
    const i8 *x;   // [tokens, width]
    const float *x_scale;
    const int *x_sum;
    int tokens;
    int width;     // a multiple of 128
    int add;       // y += the product; gates do not
    int activation; // for gates: of[0] is the gate, whose y gets the result, of[1] what it weighs
};

#define TILE 16
#define STEP 128

DEVICE int tiles(const Matrix &m) {
    return (m.rows + TILE - 1) / TILE;
}

// The matrix that a tile is of, and the tile in it. There is no indexing of parameters: it would go through local memory.
DEVICE Matrix find(const Product &p, int &tile) {
    Matrix m = p.of[0];
    if (tile >= tiles(p.of[0])) {
        tile -= tiles(p.of[0]);
        m = p.of[1];
        if (tile >= tiles(p.of[1])) {
            tile -= tiles(p.of[1]);
            m = p.of[2];
        }
    }
    return m;
}

// The result, from the sum of activations by codes: these are the weights and one.
DEVICE float scaled(int sum, int x_sum, float x_scale, float scale) {
    return __fdiv_rn((float)(sum - x_sum), x_scale) * scale;
}

DEVICE float *result(const Matrix &m, int token, int row) {
    return m.y + (u64)token * m.rows + row;
}

DEVICE void put(const Product &p, const Matrix &m, int token, int row, float value) {
    float *y = result(m, token, row);
    *y = p.add ? *y + value : value;
}

// 16 rows by 32 columns of codes, times 32 columns of 8 tokens.
DEVICE void mma_u8s8(int (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

DEVICE int dp4a_u8s8(u32 codes, u32 x, int sum) {
    int y;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(y) : "r"(codes), "r"(x), "r"(sum));
    return y;
}
