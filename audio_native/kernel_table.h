/* The kernels that exist once per instruction set, as one table of function pointers.
 *
 * Every level computes the same bits; reference.py defines them. All pointers may be unaligned except that int16_t
 * and int32_t must have their natural alignment; source and destination never overlap unless a line below says so.
 * n is in samples and may be 0. Nothing allocates, nothing can fail. */
#ifndef TALKSPURT_KERNEL_TABLE_H
#define TALKSPURT_KERNEL_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* Two taps of a filter, applied to the samples at plane[at] and plane[at + 1]. */
typedef struct {
    int32_t at;
    int16_t tap[2];
} fir_term;

/* fir_row writes whole blocks of this many samples and reads as far as they need. */
#define FIR_STEP 32

typedef struct {
    const char *name;
    void (*pcmu_to_s16)(const uint8_t *src, int16_t *dst, ptrdiff_t n);
    void (*pcma_to_s16)(const uint8_t *src, int16_t *dst, ptrdiff_t n);
    void (*s16_to_pcmu)(const int16_t *src, uint8_t *dst, ptrdiff_t n);
    void (*s16_to_pcma)(const int16_t *src, uint8_t *dst, ptrdiff_t n);

    /* dst[i] = saturate((sum over terms of tap . plane[at + i] + 2^(shift-1)) >> shift), shift 15 or 16.
     * count is even. Safety: dst has room for n rounded up to FIR_STEP, plane can be read to the largest
     * at + 1 + n rounded up; the taps of even and of odd terms each sum to less than 65535 in magnitude, so
     * that two 32-bit sums cannot overflow. */
    void (*fir_row)(const int16_t *plane, const fir_term *term, ptrdiff_t count, int shift, int16_t *dst, ptrdiff_t n);

    /* Planar to interleaved and back, n samples in each plane. */
    void (*interleave2)(const int16_t *a, const int16_t *b, int16_t *dst, ptrdiff_t n);
    void (*interleave3)(const int16_t *a, const int16_t *b, const int16_t *c, int16_t *dst, ptrdiff_t n);
    void (*deinterleave2)(const int16_t *src, int16_t *a, int16_t *b, ptrdiff_t n);
    void (*deinterleave3)(const int16_t *src, int16_t *a, int16_t *b, int16_t *c, ptrdiff_t n);

    /* *energy = sum of squares, *peak = largest magnitude, 0 to 32768. */
    void (*level_peak)(const int16_t *src, ptrdiff_t n, int64_t *energy, int32_t *peak);

    /* dst[i] = saturate(dst[i] + ((src[i] * gain_q15) >> 15)), gain 0 to 32768; src may be dst. */
    void (*mix_q15)(int16_t *dst, const int16_t *src, ptrdiff_t n, int32_t gain_q15);

    /* dst[i] = (dst[i] * g) >> 15 with g = (from * 2^15 + i * step) >> 15, both 0 to 32768 at every i < n. */
    void (*gain_ramp)(int16_t *dst, ptrdiff_t n, int32_t from_q15, int32_t step_q30);

    /* Strict base64: n letters to at most n / 4 * 3 bytes; returns how many, or -1 (dst then undefined) for any byte
     * outside the alphabet, misplaced padding or a length that is no multiple of four. dst needs room for what the
     * padding leaves, not more. */
    ptrdiff_t (*base64_decode)(const uint8_t *src, ptrdiff_t n, uint8_t *dst);

    /* n bytes to (n + 2) / 3 * 4 letters. */
    void (*base64_encode)(const uint8_t *src, ptrdiff_t n, uint8_t *dst);
} kernel_table;

#endif
