/* Local work of the proofs, compiled. mpc_ops.ring and mpc_ops.protocol hold the same in numpy: that is the specification.

   Every loop and every address follows from sizes alone: no branch, no index and no early end looks at a share. There are
   no tables indexed by shares, on no host: without AVX2 the fold costs several times more, and that is accepted.

   A body is written once and compiled for each instruction set (VARIANTS); `cm_limit` lets tests run all of them.
*/
#include <stdint.h>
#include <string.h>

#include "kernels.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi" /* vectors are passed between inlined functions only */
#endif

typedef uint64_t u64;
typedef int64_t i64;
typedef unsigned __int128 u128;
typedef u64 v8 __attribute__((vector_size(64), aligned(8), may_alias));
typedef u64 v4 __attribute__((vector_size(32), aligned(8), may_alias));
typedef i64 s4 __attribute__((vector_size(32), aligned(8), may_alias));
typedef i64 s8 __attribute__((vector_size(64), aligned(8), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define P61 (((u64)1 << 61) - 1)
#define LANES 64
#define SLOTS 8
#define BLOCK (LANES * SLOTS)

/* ---------------------------------------------------------------------------------------------- instruction sets */

#if defined(__x86_64__) && defined(__GNUC__)
#define X86 1
#define AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define WIDE __attribute__((target("avx2,bmi,bmi2,popcnt,avx512f,avx512vl,avx512bw,avx512dq,avx512vpopcntdq")))
static int supported(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("popcnt")) return 0;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vpopcntdq")
               ? 2
               : 1;
}
#define VARIANTS(name, parameters, arguments)                          \
    WIDE static void name##_wide parameters { name##_body(2, arguments); } \
    AVX2 static void name##_avx2 parameters { name##_body(1, arguments); } \
    static void name##_any parameters { name##_body(0, arguments); }       \
    void name parameters {                                             \
        int level = cm_level();                                        \
        (level == 2 ? name##_wide : level == 1 ? name##_avx2 : name##_any)(arguments); \
    }
#else
#define X86 0
static int supported(void) { return 0; }
#define VARIANTS(name, parameters, arguments) \
    void name parameters { name##_body(0, arguments); }
#endif
#define UNROLL _Pragma("GCC unroll 8")
#define ARGS(...) __VA_ARGS__

int cm_version(void) { return 6; }

static int limit = 2;
int cm_level(void) {
    static int found = -1; /* threads that come first together all write the same */
    if (__atomic_load_n(&found, __ATOMIC_RELAXED) < 0) __atomic_store_n(&found, supported(), __ATOMIC_RELAXED);
    int best = __atomic_load_n(&found, __ATOMIC_RELAXED), most = __atomic_load_n(&limit, __ATOMIC_RELAXED);
    return best < most ? best : most;
}
void cm_limit(int level) { __atomic_store_n(&limit, level, __ATOMIC_RELAXED); }

/* ------------------------------------------------------------------------------------------------- bits and field */

INLINE u64 reduce(u64 t) { /* any word, to [0, p) */
    t = (t & P61) + (t >> 61);
    return t - (P61 & -(u64)(t >= P61));
}
INLINE u64 reduce_wide(u128 t) { return reduce(((u64)t & P61) + ((u64)(t >> 61) & P61) + (u64)(t >> 122)); }
INLINE u64 multiply(u64 a, u64 b) { return reduce_wide((u128)a * b); }
INLINE v4 fold4(v4 t) { return (t & P61) + (t >> 61); } /* at most p + 7 */
INLINE v4 reduce4(v4 t) {
    t = fold4(t);
    return t - (P61 & (v4)((s4)t >= (s4){P61, P61, P61, P61}));
}
INLINE v8 fold8(v8 t) { return (t & P61) + (t >> 61); }
INLINE v8 reduce8(v8 t) {
    t = fold8(t);
    return t - (P61 & (v8)((s8)t >= (s8){P61, P61, P61, P61, P61, P61, P61, P61}));
}

INLINE u64 bits_set(int level, u64 t) {
    if (level || !X86) return (u64)__builtin_popcountll(t);
    t -= (t >> 1) & 0x5555555555555555u; /* the library's function would look it up in a table */
    t = (t & 0x3333333333333333u) + ((t >> 2) & 0x3333333333333333u);
    return (((t + (t >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u) >> 56;
}
INLINE v8 bits_set8(v8 t) { /* one instruction in the wide variant, which alone uses it */
    v8 out;
    for (int q = 0; q < 8; q++) out[q] = (u64)__builtin_popcountll(t[q]);
    return out;
}

#define SWAP(a, b, shift, mask)          \
    {                                    \
        v8 moved = ((a >> shift) ^ b) & mask; \
        b ^= moved;                      \
        a ^= moved << shift;             \
    }
/* Eight 64 x 64 bit matrices side by side: bit a of out[b] is bit b of in[a]; two steps a pass. in may be out. */
INLINE void transpose(const v8 *in, v8 *out) {
    for (int k = 0; k < 16; k++) {
        v8 a = in[k], b = in[k + 16], c = in[k + 32], d = in[k + 48];
        SWAP(a, c, 32, 0x00000000FFFFFFFFu) SWAP(b, d, 32, 0x00000000FFFFFFFFu)
        SWAP(a, b, 16, 0x0000FFFF0000FFFFu) SWAP(c, d, 16, 0x0000FFFF0000FFFFu)
        out[k] = a; out[k + 16] = b; out[k + 32] = c; out[k + 48] = d;
    }
    for (int g = 0; g < 64; g += 16)
        for (int k = g; k < g + 4; k++) {
            v8 a = out[k], b = out[k + 4], c = out[k + 8], d = out[k + 12];
            SWAP(a, c, 8, 0x00FF00FF00FF00FFu) SWAP(b, d, 8, 0x00FF00FF00FF00FFu)
            SWAP(a, b, 4, 0x0F0F0F0F0F0F0F0Fu) SWAP(c, d, 4, 0x0F0F0F0F0F0F0F0Fu)
            out[k] = a; out[k + 4] = b; out[k + 8] = c; out[k + 12] = d;
        }
    for (int k = 0; k < 64; k += 4) {
        v8 a = out[k], b = out[k + 1], c = out[k + 2], d = out[k + 3];
        SWAP(a, c, 2, 0x3333333333333333u) SWAP(b, d, 2, 0x3333333333333333u)
        SWAP(a, b, 1, 0x5555555555555555u) SWAP(c, d, 1, 0x5555555555555555u)
        out[k] = a; out[k + 1] = b; out[k + 2] = c; out[k + 3] = d;
    }
}

/* A block of a vector that ends somewhere: itself if it is whole, else a copy in `room` filled up with zeros. */
INLINE const u64 *whole(const u64 *from, i64 start, i64 size, i64 block, u64 *room) {
    if (start + block <= size) return from + start;
    memset(room, 0, (size_t)block * sizeof *room);
    memcpy(room, from + start, (size_t)(size - start) * sizeof *room);
    return room;
}

/* ------------------------------------------------------------------------------------------------------- recipe A */

INLINE v8 error_bits(const u64 *x, const u64 *y, const u64 *e, v8 xp, v8 yp, v8 ep) {
    return *(const v8 *)e ^ (*(const v8 *)x & yp) ^ (*(const v8 *)y & xp) ^ ep;
}
/* Wrong bits of lanes a, b with a - b = d, added to wrong[d + 63]. Wide: tiles of 4 x 4 lanes along a diagonal of tiles,
   so that 7 sums and 12 operands stay in registers. */
INLINE void cross_tiles(const u64 *x, const u64 *y, const u64 *e, const u64 *xp, const u64 *yp, const u64 *ep,
                        u64 *wrong) {
    for (int tile = -(LANES / 4 - 1); tile < LANES / 4; tile++) {
        v8 sums[7] = {{0}};
        for (int i = tile > 0 ? tile : 0; i < LANES / 4 && i - tile < LANES / 4; i++) {
            const i64 a = 4 * SLOTS * i, b = 4 * SLOTS * (i - tile);
            v8 xb[4], yb[4], eb[4];
            UNROLL for (int j = 0; j < 4; j++) {
                xb[j] = *(const v8 *)(xp + b + SLOTS * j);
                yb[j] = *(const v8 *)(yp + b + SLOTS * j);
                eb[j] = *(const v8 *)(ep + b + SLOTS * j);
            }
            UNROLL for (int k = 0; k < 4; k++)
                UNROLL for (int j = 0; j < 4; j++)
                    sums[k - j + 3] += bits_set8(
                        error_bits(x + a + SLOTS * k, y + a + SLOTS * k, e + a + SLOTS * k, xb[j], yb[j], eb[j]));
        }
        for (int k = 0; k < 7; k++)
            for (int q = 0; q < SLOTS; q++) wrong[4 * tile + k - 3 + LANES - 1] += sums[k][q];
    }
}
INLINE void cross_pairs(int level, const u64 *x, const u64 *y, const u64 *e, const u64 *xp, const u64 *yp,
                        const u64 *ep, u64 *wrong) {
    for (int a = 0; a < LANES; a++)
        for (int b = 0; b < LANES; b++) {
            u64 sum = 0;
            for (int q = 0; q < SLOTS; q++) {
                int i = SLOTS * a + q, j = SLOTS * b + q;
                sum += bits_set(level, e[i] ^ (x[i] & yp[j]) ^ (y[i] & xp[j]) ^ ep[j]);
            }
            wrong[a - b + LANES - 1] += sum;
        }
}
INLINE void cm_and_cross_body(int level, const u64 *x, const u64 *y, const u64 *e, const u64 *xp, const u64 *yp,
                              const u64 *ep, i64 words, i64 *totals) {
    u64 wrong[2 * LANES - 1 + 1] = {0}, room[6][BLOCK];
    for (i64 o = 0; o < words; o += BLOCK) {
        const u64 *a = whole(x, o, words, BLOCK, room[0]), *b = whole(y, o, words, BLOCK, room[1]),
                  *c = whole(e, o, words, BLOCK, room[2]), *d = whole(xp, o, words, BLOCK, room[3]),
                  *f = whole(yp, o, words, BLOCK, room[4]), *g = whole(ep, o, words, BLOCK, room[5]);
        if (level == 2) cross_tiles(a, b, c, d, f, g, wrong);
        else cross_pairs(level, a, b, c, d, f, g, wrong);
    }
    i64 blocks = (words + BLOCK - 1) / BLOCK;
    for (int k = 0; k < 2 * LANES - 1; k++) {
        int degree = k - (LANES - 1), pairs = LANES - (degree < 0 ? -degree : degree);
        totals[k] += blocks * SLOTS * 64 * pairs - 2 * (i64)wrong[k];
    }
}
VARIANTS(cm_and_cross,
         (const u64 *x, const u64 *y, const u64 *e, const u64 *xp, const u64 *yp, const u64 *ep, i64 words, i64 *totals),
         ARGS(x, y, e, xp, yp, ep, words, totals))

/* Columns are folded with masks from their own sign bits: 4 columns a vector, 64 lanes one after the other. */
INLINE void fold_masks(const u64 *tx, const u64 *ty, const u64 *te, const u64 *c, int right, i64 stride, u64 *out) {
    const s4 zero = {0};
    for (int b = 0; b < BLOCK; b += 4) {
        v4 X = *(const v4 *)(tx + b), Y = *(const v4 *)(ty + b), E = *(const v4 *)(te + b);
        v4 s[4] = {{0}};
        for (int a = LANES - 1; a >= 0;) {
            for (int step = a >= 7 ? 7 : a + 1; step; step--, a--) { /* 7 p + (p + 7) < 2^64 */
                v4 me = (v4)((s4)E < zero), mx = (v4)((s4)X < zero), my = (v4)((s4)Y < zero);
                v4 t = c[a] ^ (me & (c[a] ^ (P61 - c[a]))), q = t & mx;
                E += E; X += X; Y += Y;
                s[0] += t; s[1] += q; s[2] += t & my; s[3] += q & my;
            }
            for (int k = 0; k < 4; k++) s[k] = fold4(s[k]);
        }
        for (int k = 0; k < 4; k++) s[k] = reduce4(s[k]);
        if (right) {
            v4 swapped = reduce4((P61 - s[1]) << 1);
            s[1] = reduce4((P61 - s[2]) << 1);
            s[2] = swapped;
            s[3] = reduce4(s[3] << 2);
        }
        for (int k = 0; k < 4; k++) *(v4 *)(out + k * stride + b) = s[k];
    }
}
#if X86 && !defined(__clang__)
#define HAS_SHUFFLE 1
/* Sum of the coefficients of a word's bits: 16 tables of 16 entries, each read as two whole registers. At most p + 2. */
INLINE v8 picked(const v8 tables[16][2], v8 w) {
    v8 sums[2] = {{0}};
    for (int n = 0; n < 16; n++) sums[n >> 3] += __builtin_shuffle(tables[n][0], tables[n][1], w >> (4 * n));
    return fold8(fold8(sums[0]) + fold8(sums[1]));
}
INLINE void fold_shuffles(const v8 *tx, const v8 *ty, const v8 *te, const v8 tables[16][2], u64 all, int right,
                          i64 stride, u64 *out) {
    for (int b = 0; b < 64; b++) {
        v8 X = tx[b], Y = ty[b], E = te[b], XY = X & Y, s[4];
        s[0] = reduce8(all + ((2 * P61 - picked(tables, E)) << 1));
        s[1] = reduce8(picked(tables, X) + ((2 * P61 - picked(tables, X & E)) << 1));
        s[2] = reduce8(picked(tables, Y) + ((2 * P61 - picked(tables, Y & E)) << 1));
        s[3] = reduce8(picked(tables, XY) + ((2 * P61 - picked(tables, XY & E)) << 1));
        if (right) {
            v8 swapped = reduce8((P61 - s[1]) << 1);
            s[1] = reduce8((P61 - s[2]) << 1);
            s[2] = swapped;
            s[3] = reduce8(s[3] << 2);
        }
        for (int k = 0; k < 4; k++) *(v8 *)(out + k * stride + 8 * b) = s[k];
    }
}
#else
#define HAS_SHUFFLE 0
#endif
INLINE void cm_and_fold_body(int level, const u64 *x, const u64 *y, const u64 *e, i64 words, const u64 *coefficients,
                             int right, i64 stride, u64 *out) {
    v8 tx[64], ty[64], te[64];
    u64 room[3][BLOCK];
#if HAS_SHUFFLE
    u64 tables[16][16] __attribute__((aligned(64))), all = 0;
    for (int n = 0; n < 16; n++)
        for (int bits = tables[n][0] = 0; bits < 4; bits++)
            for (int k = 0; k < 1 << bits; k++) tables[n][(1 << bits) + k] = reduce(tables[n][k] + coefficients[4 * n + bits]);
    for (int a = 0; a < LANES; a++) all = reduce(all + coefficients[a]);
#endif
    for (i64 o = 0; o < words; o += BLOCK) {
        transpose((const v8 *)whole(x, o, words, BLOCK, room[0]), tx);
        transpose((const v8 *)whole(y, o, words, BLOCK, room[1]), ty);
        transpose((const v8 *)whole(e, o, words, BLOCK, room[2]), te);
#if HAS_SHUFFLE
        if (level == 2) {
            fold_shuffles(tx, ty, te, (const v8(*)[2])tables, all, right, stride, out + o);
            continue;
        }
#endif
        fold_masks((const u64 *)tx, (const u64 *)ty, (const u64 *)te, coefficients, right, stride, out + o);
    }
}
VARIANTS(cm_and_fold,
         (const u64 *x, const u64 *y, const u64 *e, i64 words, const u64 *coefficients, int right, i64 stride, u64 *out),
         ARGS(x, y, e, words, coefficients, right, stride, out))

void cm_and_words(const u64 *x0, const u64 *x1, const u64 *y0, const u64 *y1, const u64 *r0, const u64 *r1, i64 words,
                  u64 *z) {
    for (i64 k = 0; k < words; k++) z[k] = (x0[k] & (y0[k] ^ y1[k])) ^ (x1[k] & y0[k]) ^ r0[k] ^ r1[k];
}

/* ------------------------------------------------------------------------------------------------------ the field

   Products of two words have no vector form that beats the plain one: variants pay for cross terms only (mulx). */

/* R[d + lanes - 1] += sum over a - b = d of <u_a, v_b>; 64 products (p - 1)^2 and one element stay below 2^128. */
INLINE void field_cross_block(int lanes, const u64 *u, const u64 *v, u64 *out) {
    for (int d = -(lanes - 1); d < lanes; d++) {
        int a = d < 0 ? 0 : d, end = d < 0 ? lanes + d : lanes;
        u64 sum = out[d + lanes - 1];
        while (a < end) {
            u128 part = sum;
            for (int stop = a + 8 < end ? a + 8 : end; a < stop; a++)
                for (int q = 0; q < SLOTS; q++) part += (u128)u[SLOTS * a + q] * v[SLOTS * (a - d) + q];
            sum = reduce_wide(part);
        }
        out[d + lanes - 1] = sum;
    }
}
INLINE void cm_field_cross_body(int level, const u64 *u, const u64 *v, i64 size, int lanes, u64 *out) {
    (void)level;
    u64 room[2][BLOCK];
    for (i64 o = 0; o < size; o += lanes * SLOTS) {
        const u64 *a = whole(u, o, size, lanes * SLOTS, room[0]), *b = whole(v, o, size, lanes * SLOTS, room[1]);
        if (lanes == 8) field_cross_block(8, a, b, out);
        else if (lanes == 16) field_cross_block(16, a, b, out);
        else field_cross_block(lanes, a, b, out);
    }
}

VARIANTS(cm_field_cross, (const u64 *u, const u64 *v, i64 size, int lanes, u64 *out), ARGS(u, v, size, lanes, out))

void cm_field_fold(const u64 *u, i64 size, int lanes, const u64 *coefficients, u64 *out) {
    u64 room[BLOCK];
    for (i64 o = 0; o < size; o += lanes * SLOTS, out += SLOTS) {
        const u64 *from = whole(u, o, size, lanes * SLOTS, room);
        for (int q = 0; q < SLOTS; q++) {
            u128 sum = 0;
            for (int a = 0; a < lanes; a++) {
                if (a == 32) sum = reduce_wide(sum);
                sum += (u128)from[SLOTS * a + q] * coefficients[a];
            }
            out[q] = reduce_wide(sum);
        }
    }
}

void cm_field_convolve(const u64 *a, i64 n, const u64 *b, i64 m, u64 *out) {
    for (i64 k = 0; k < n + m - 1; k++) {
        i64 i = k < m ? 0 : k - m + 1, end = k < n ? k + 1 : n;
        u64 sum = 0;
        while (i < end) {
            u128 part = sum;
            for (i64 stop = i + 32 < end ? i + 32 : end; i < stop; i++) part += (u128)a[i] * b[k - i];
            sum = reduce_wide(part);
        }
        out[k] = sum;
    }
}

u64 cm_field_dot(const u64 *a, const u64 *b, i64 size) {
    u64 sum = 0;
    for (i64 i = 0; i < size;) {
        u128 part = sum;
        for (i64 stop = i + 32 < size ? i + 32 : size; i < stop; i++) part += (u128)a[i] * b[i];
        sum = reduce_wide(part);
    }
    return sum;
}
u64 cm_field_evaluate(const u64 *coefficients, i64 size, u64 point) {
    u64 sum = 0;
    while (size--) sum = reduce_wide((u128)sum * point + coefficients[size]);
    return sum;
}
void cm_field_powers(u64 base, i64 size, u64 *out) {
    u64 power = 1;
    for (i64 k = 0; k < size; k++, power = multiply(power, base)) out[k] = power;
}
void cm_field_uniform(const u64 *words, i64 size, u64 *out) { /* 2^64 = 8 mod p */
    for (i64 k = 0; k < size; k++) out[k] = reduce_wide((u128)words[2 * k + 1] * 8 + words[2 * k]);
}

/* ------------------------------------------------------------------------------------------------------- recipe B */

INLINE u128 wide_of(u64 low, u64 high) { return (u128)high << 64 | low; }
INLINE void put(u64 *low, u64 *high, i64 at, u128 value) { low[at] = (u64)value; high[at] = (u64)(value >> 64); }

/* High words of w_j = sum over the terms of output j of (x0 y1 + y0 x1) + l_j - r_j mod 2^128. */
void cm_ring_carries(const u64 *x0, const u64 *y0, const u64 *x1, const u64 *y1, const i64 *ends, const u64 *l,
                     const u64 *r, i64 begin, i64 outputs, u64 *q) {
    for (i64 j = 0, t = begin; j < outputs; j++) {
        u128 w = (u128)l[j] - r[j];
        for (; t < ends[j]; t++) w += (u128)x0[t] * y1[t] + (u128)y0[t] * x1[t];
        q[j] = (u64)(w >> 64);
    }
}

/* sum c (2^64 q + l), or minus l */
void cm_ring_weighted(const u64 *c, const u64 *q, const u64 *l, i64 outputs, int minus, u64 *out) {
    u128 sum = 0;
    u64 high = 0;
    for (i64 j = 0; j < outputs; j++) {
        sum += (u128)c[j] * l[j];
        high += c[j] * q[j];
    }
    put(out, out + 1, 0, ((u128)high << 64) + (minus ? -sum : sum));
}

INLINE void add_matrix(const u128 *sums, int lanes, u64 *out) {
    for (int k = 0; k < lanes * lanes; k++) put(out, out + lanes * lanes, k, wide_of(out[k], out[lanes * lanes + k]) + sums[k]);
}
/* The weighted words c x are exact products, low and high: their high words meet the other side in 64 bits only. */
void cm_ring_matrix_first(const u64 *x, const u64 *y, const u64 *c, const u64 *yp, const u64 *xp, i64 terms,
                          u64 *out) {
    u128 sums[64] = {0};
    u64 room[5][64], xl[64], xh[64], yl[64], yh[64];
    for (i64 o = 0; o < terms; o += 64) {
        const u64 *px = whole(x, o, terms, 64, room[0]), *py = whole(y, o, terms, 64, room[1]),
                  *pc = whole(c, o, terms, 64, room[2]), *qy = whole(yp, o, terms, 64, room[3]),
                  *qx = whole(xp, o, terms, 64, room[4]);
        for (int k = 0; k < 64; k++) {
            put(xl, xh, k, (u128)px[k] * pc[k]);
            put(yl, yh, k, (u128)py[k] * pc[k]);
        }
        for (int a = 0; a < 64; a += SLOTS)
            for (int b = 0; b < 64; b += SLOTS) {
                u128 sum = 0;
                u64 high = 0;
                for (int q = 0; q < SLOTS; q++) high += xh[a + q] * qy[b + q] + yh[a + q] * qx[b + q];
                for (int q = 0; q < SLOTS; q++) {
                    sum += (u128)xl[a + q] * qy[b + q];
                    sum += (u128)yl[a + q] * qx[b + q];
                }
                sums[a + b / SLOTS] += sum + ((u128)high << 64);
            }
    }
    add_matrix(sums, 8, out);
}

INLINE void ring_fold_first_blocks(int weighted, const u64 *x, const u64 *y, const u64 *c, i64 terms,
                                   const u64 *coefficients, u64 *low, u64 *high) {
    u64 room[3][64];
    for (i64 o = 0, at = 0; o < terms; o += 64, at += 2 * SLOTS) {
        const u64 *px = whole(x, o, terms, 64, room[0]), *py = whole(y, o, terms, 64, room[1]),
                  *pc = weighted ? whole(c, o, terms, 64, room[2]) : 0;
        for (int q = 0; q < SLOTS; q++) {
            u128 of_x = 0, of_y = 0;
            for (int a = 0; a < 8; a++) {
                u128 w = wide_of(coefficients[a], coefficients[8 + a]);
                if (weighted) w *= pc[SLOTS * a + q];
                of_x += w * px[SLOTS * a + q];
                of_y += w * py[SLOTS * a + q];
            }
            put(low, high, at + q, of_x);
            put(low, high, at + SLOTS + q, of_y);
        }
    }
}
void cm_ring_fold_first(const u64 *x, const u64 *y, const u64 *c, i64 terms, const u64 *coefficients, u64 *low,
                        u64 *high) {
    if (c) ring_fold_first_blocks(1, x, y, c, terms, coefficients, low, high);
    else ring_fold_first_blocks(0, x, y, c, terms, coefficients, low, high);
}

INLINE void ring_matrix_block(int lanes, const u64 *ul, const u64 *uh, const u64 *vl, const u64 *vh, u128 *sums) {
    for (int a = 0; a < lanes; a++)
        for (int b = 0; b < lanes; b++) {
            int i = SLOTS * a, j = SLOTS * b;
            u128 sum = 0;
            u64 high = 0;
            for (int q = 0; q < SLOTS; q++) high += uh[i + q] * vl[j + q] + ul[i + q] * vh[j + q];
            for (int q = 0; q < SLOTS; q++) sum += (u128)ul[i + q] * vl[j + q];
            sums[lanes * a + b] += sum + ((u128)high << 64);
        }
}
void cm_ring_matrix(const u64 *ul, const u64 *uh, const u64 *vl, const u64 *vh, i64 size, int lanes, u64 *out) {
    u128 sums[LANES * LANES];
    u64 room[4][BLOCK];
    memset(sums, 0, sizeof *sums * (size_t)(lanes * lanes));
    for (i64 o = 0, block = lanes * SLOTS; o < size; o += block) {
        const u64 *a = whole(ul, o, size, block, room[0]), *b = whole(uh, o, size, block, room[1]),
                  *c = whole(vl, o, size, block, room[2]), *d = whole(vh, o, size, block, room[3]);
        if (lanes == 16) ring_matrix_block(16, a, b, c, d, sums);
        else ring_matrix_block(lanes, a, b, c, d, sums);
    }
    add_matrix(sums, lanes, out);
}

void cm_ring_fold(const u64 *ul, const u64 *uh, i64 size, int lanes, const u64 *coefficients, u64 *low, u64 *high) {
    u64 room[2][BLOCK];
    for (i64 o = 0, at = 0, block = lanes * SLOTS; o < size; o += block, at += SLOTS) {
        const u64 *l = whole(ul, o, size, block, room[0]), *h = whole(uh, o, size, block, room[1]);
        for (int q = 0; q < SLOTS; q++) {
            u128 sum = 0;
            for (int a = 0; a < lanes; a++)
                sum += wide_of(coefficients[a], coefficients[lanes + a]) * wide_of(l[SLOTS * a + q], h[SLOTS * a + q]);
            put(low, high, at + q, sum);
        }
    }
}

/* a^T M b; each argument is low words then high words. */
void cm_ring_bilinear(const u64 *a, const u64 *m, const u64 *b, i64 rows, i64 columns, u64 *out) {
    u128 sum = 0;
    for (i64 i = 0; i < rows; i++) {
        u128 row = 0;
        for (i64 j = 0, at = i * columns; j < columns; j++, at++)
            row += wide_of(m[at], m[rows * columns + at]) * wide_of(b[j], b[columns + j]);
        sum += row * wide_of(a[i], a[rows + i]);
    }
    put(out, out + 1, 0, sum);
}

/* z = x0 (y0 + y1) + x1 y0 + r0 - r1, and l = x0 y0 + r0 - z */
void cm_ring_products(const u64 *x0, const u64 *x1, const u64 *y0, const u64 *y1, const u64 *r0, const u64 *r1,
                      i64 size, u64 *l, u64 *z) {
    for (i64 k = 0; k < size; k++) {
        u64 rest = r1[k] - x0[k] * y1[k] - x1[k] * y0[k];
        l[k] = rest;
        z[k] = x0[k] * y0[k] + r0[k] - rest;
    }
}
/* l = x y + r - z */
void cm_ring_lefts(const u64 *x, const u64 *y, const u64 *r, const u64 *z, i64 size, u64 *l) {
    for (i64 k = 0; k < size; k++) l[k] = x[k] * y[k] + r[k] - z[k];
}

/* ------------------------------------------------------------------------------------------------------ bit-planes */

INLINE void cm_to_planes_body(int level, const u64 *values, i64 count, int width, i64 stride, u64 *planes) {
    v8 rows[64];
    u64 *at = (u64 *)rows;
    (void)level;
    for (i64 word = 0; 64 * word < count; word += 8) {
        i64 left = count - 64 * word, words = (left + 63) / 64 < 8 ? (left + 63) / 64 : 8;
        if (left < BLOCK) memset(rows, 0, sizeof rows);
        for (int q = 0; q < words; q++)
            for (int k = 0, end = left - 64 * q < 64 ? (int)(left - 64 * q) : 64; k < end; k++)
                at[8 * k + q] = values[64 * (word + q) + k];
        transpose(rows, rows);
        for (int k = 0; k < width; k++) memcpy(planes + k * stride + word, at + 8 * k, (size_t)words * sizeof *at);
    }
}
VARIANTS(cm_to_planes, (const u64 *values, i64 count, int width, i64 stride, u64 *planes),
         ARGS(values, count, width, stride, planes))

INLINE void cm_from_planes_body(int level, const u64 *planes, i64 count, int width, i64 stride, u64 *values) {
    v8 rows[64];
    u64 *at = (u64 *)rows;
    (void)level;
    for (i64 word = 0; 64 * word < count; word += 8) {
        i64 left = count - 64 * word, words = (left + 63) / 64 < 8 ? (left + 63) / 64 : 8;
        memset(rows, 0, sizeof rows);
        for (int k = 0; k < width; k++) memcpy(at + 8 * k, planes + k * stride + word, (size_t)words * sizeof *at);
        transpose(rows, rows);
        for (int q = 0; q < words; q++)
            for (int k = 0, end = left - 64 * q < 64 ? (int)(left - 64 * q) : 64; k < end; k++)
                values[64 * (word + q) + k] = at[8 * k + q];
    }
}
VARIANTS(cm_from_planes, (const u64 *planes, i64 count, int width, i64 stride, u64 *values),
         ARGS(planes, count, width, stride, values))

/* Tag plane t of 512 rows is the XOR of the planes whose column has bit t: the key chooses masks, never places or branches. */
INLINE void cm_row_tags_body(int level, const u64 *planes, i64 count, int width, i64 stride, const u64 *key, u64 *tags) {
    v8 rows[64], out[64];
    u64 *at = (u64 *)rows, *tag = (u64 *)out;
    (void)level;
    for (i64 word = 0; 64 * word < count; word += 8) {
        i64 left = count - 64 * word, words = (left + 63) / 64 < 8 ? (left + 63) / 64 : 8;
        if (left < BLOCK) memset(rows, 0, sizeof rows);
        for (int k = 0; k < width; k++) memcpy(at + 8 * k, planes + k * stride + word, (size_t)words * sizeof *at);
        for (int t = 0; t < 64; t++) {
            v8 sum = {0};
            for (int k = 0; k < width; k++) sum ^= rows[k] & -(key[k] >> t & 1);
            out[t] = sum;
        }
        transpose(out, out);
        for (int q = 0; q < words; q++)
            for (int k = 0, end = left - 64 * q < 64 ? (int)(left - 64 * q) : 64; k < end; k++)
                tags[64 * (word + q) + k] ^= tag[8 * k + q];
    }
}
VARIANTS(cm_row_tags, (const u64 *planes, i64 count, int width, i64 stride, const u64 *key, u64 *tags),
         ARGS(planes, count, width, stride, key, tags))
