/* What mpc_ops/kernels/calls.py may call. Sizes and bounds are checked there; nothing here fails or allocates.
   Vectors are uint64_t; elements of the field are in [0, 2^61 - 1); a wide vector is a low and a high array. */

/* Changes with every change of this file: an extension that was built from another one is not used. */
int cm_version(void);

/* Instruction sets: 0 what the compiler assumes, 1 AVX2, 2 AVX-512 with population counts. */
int cm_level(void);
void cm_limit(int level);

/* Recipe A. Blocks of 64 lanes x 8 words; a ragged last block counts as filled with zeros. */
void cm_and_cross(const uint64_t *x, const uint64_t *y, const uint64_t *e, const uint64_t *xp, const uint64_t *yp,
                  const uint64_t *ep, int64_t words, int64_t *totals);
void cm_and_fold(const uint64_t *x, const uint64_t *y, const uint64_t *e, int64_t words, const uint64_t *coefficients,
                 int right, int64_t stride, uint64_t *out);
void cm_and_words(const uint64_t *x0, const uint64_t *x1, const uint64_t *y0, const uint64_t *y1, const uint64_t *r0,
                  const uint64_t *r1, int64_t words, uint64_t *z);

/* The field of 2^61 - 1. Blocks of `lanes` x 8 elements; a ragged last block counts as filled with zeros. */
void cm_field_cross(const uint64_t *u, const uint64_t *v, int64_t size, int lanes, uint64_t *out);
void cm_field_fold(const uint64_t *u, int64_t size, int lanes, const uint64_t *coefficients, uint64_t *out);
void cm_field_convolve(const uint64_t *a, int64_t n, const uint64_t *b, int64_t m, uint64_t *out);
uint64_t cm_field_dot(const uint64_t *a, const uint64_t *b, int64_t size);
uint64_t cm_field_evaluate(const uint64_t *coefficients, int64_t size, uint64_t point);
void cm_field_powers(uint64_t base, int64_t size, uint64_t *out);
void cm_field_uniform(const uint64_t *words, int64_t size, uint64_t *out);

/* Recipe B. Level 1: blocks of 8 lanes x 8 products; later: `lanes` (at most 64) x 8 elements mod 2^128, low and high words
   apart; a ragged last block counts as filled with zeros. Matrices are lanes x lanes, low words then high words. */
void cm_ring_carries(const uint64_t *x0, const uint64_t *y0, const uint64_t *x1, const uint64_t *y1, const int64_t *ends,
                     const uint64_t *l, const uint64_t *r, int64_t begin, int64_t outputs, uint64_t *q);
void cm_ring_weighted(const uint64_t *c, const uint64_t *q, const uint64_t *l, int64_t outputs, int minus, uint64_t *out);
void cm_ring_matrix_first(const uint64_t *x, const uint64_t *y, const uint64_t *c, const uint64_t *yp, const uint64_t *xp,
                          int64_t terms, uint64_t *out);
void cm_ring_fold_first(const uint64_t *x, const uint64_t *y, const uint64_t *c, int64_t terms,
                        const uint64_t *coefficients, uint64_t *low, uint64_t *high);
void cm_ring_matrix(const uint64_t *ul, const uint64_t *uh, const uint64_t *vl, const uint64_t *vh, int64_t size, int lanes,
                    uint64_t *out);
void cm_ring_fold(const uint64_t *ul, const uint64_t *uh, int64_t size, int lanes, const uint64_t *coefficients,
                  uint64_t *low, uint64_t *high);
void cm_ring_bilinear(const uint64_t *a, const uint64_t *m, const uint64_t *b, int64_t rows, int64_t columns, uint64_t *out);
void cm_ring_products(const uint64_t *x0, const uint64_t *x1, const uint64_t *y0, const uint64_t *y1, const uint64_t *r0,
                      const uint64_t *r1, int64_t size, uint64_t *l, uint64_t *z);
void cm_ring_lefts(const uint64_t *x, const uint64_t *y, const uint64_t *r, const uint64_t *z, int64_t size, uint64_t *l);

/* Bit-planes: `values` of 64-bit words to and from planes of `stride` words; planes from `width` on are zero. */
void cm_to_planes(const uint64_t *values, int64_t count, int width, int64_t stride, uint64_t *planes);
void cm_from_planes(const uint64_t *planes, int64_t count, int width, int64_t stride, uint64_t *values);

/* Adds to each row's tag the XOR of the columns `key` of the planes whose bit is set; time does not depend on the contents. */
void cm_row_tags(const uint64_t *planes, int64_t count, int width, int64_t stride, const uint64_t *key, uint64_t *tags);
