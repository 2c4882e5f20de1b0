/* Runs every kernel of every level on buffers of exactly the size its contract names, at every length to 200, beside
 * plain C. Built with the sanitizers by test_dispatch.py: a read or write too far, a misaligned access or a signed
 * overflow ends it. Exit 0 when all levels agree. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_levels.h"

enum { TERMS = 14, SPAN = 2 * TERMS };

static uint32_t state = 1;

static int16_t noise(void)
{
    state = state * 1664525u + 1013904223u;
    return (state >> 29) ? (int16_t)(state >> 16) : (int16_t)(state & 0x10000 ? 32767 : -32768);
}

static void *room(size_t bytes)
{
    uint8_t *p = malloc(bytes ? bytes : 1);
    if (!p)
        exit(2);
    for (size_t i = 0; i < bytes; i++)
        p[i] = (uint8_t)noise();
    return p;
}

static int differ(const char *level, const char *what, ptrdiff_t n, const void *a, const void *b, size_t bytes)
{
    if (!memcmp(a, b, bytes))
        return 0;
    fprintf(stderr, "%s %s differs at n=%td\n", level, what, n);
    return 1;
}

static int check(const kernel_table *k, ptrdiff_t n)
{
    const size_t u = (size_t)n, whole = (u + FIR_STEP - 1) / FIR_STEP * FIR_STEP;
    uint8_t *code = room(u), *code_k = room(u), *code_c = room(u);
    int16_t *x = room(6 * u), *y = room(2 * u), *z = room(2 * u), *out_k = room(6 * u), *out_c = room(6 * u);
    int16_t *plane = room(2 * (SPAN + whole)), *row_k = room(2 * whole), *row_c = room(2 * whole);
    int16_t *a = room(2 * u), *b = room(2 * u), *c = room(2 * u);
    fir_term term[TERMS];
    int64_t energy_k, energy_c;
    int32_t peak_k, peak_c;
    int bad = 0;

    k->pcmu_to_s16(code, out_k, n), pcmu_to_s16_c(code, out_c, n);
    bad |= differ(k->name, "pcmu_to_s16", n, out_k, out_c, 2 * u);
    k->pcma_to_s16(code, out_k, n), pcma_to_s16_c(code, out_c, n);
    bad |= differ(k->name, "pcma_to_s16", n, out_k, out_c, 2 * u);
    k->s16_to_pcmu(x, code_k, n), s16_to_pcmu_c(x, code_c, n);
    bad |= differ(k->name, "s16_to_pcmu", n, code_k, code_c, u);
    k->s16_to_pcma(x, code_k, n), s16_to_pcma_c(x, code_c, n);
    bad |= differ(k->name, "s16_to_pcma", n, code_k, code_c, u);

    for (int t = 0; t < TERMS; t++) { /* 7 pairs of at most 2 x 4600 stay below 65535 */
        term[t].at = 2 * t;
        term[t].tap[0] = (int16_t)(noise() % 4600);
        term[t].tap[1] = (int16_t)(noise() % 4600);
    }
    for (int shift = 15; shift <= 16; shift++) {
        k->fir_row(plane, term, TERMS, shift, row_k, n), fir_row_c(plane, term, TERMS, shift, row_c, n);
        bad |= differ(k->name, "fir_row", n, row_k, row_c, 2 * u);
    }
    k->interleave2(y, z, out_k, n), interleave2_c(y, z, out_c, n);
    bad |= differ(k->name, "interleave2", n, out_k, out_c, 4 * u);
    k->deinterleave2(out_c, a, b, n);
    bad |= differ(k->name, "deinterleave2", n, a, y, 2 * u) | differ(k->name, "deinterleave2", n, b, z, 2 * u);
    k->interleave3(y, z, x, out_k, n), interleave3_c(y, z, x, out_c, n);
    bad |= differ(k->name, "interleave3", n, out_k, out_c, 6 * u);
    k->deinterleave3(out_c, a, b, c, n);
    bad |= differ(k->name, "deinterleave3", n, a, y, 2 * u) | differ(k->name, "deinterleave3", n, b, z, 2 * u) |
           differ(k->name, "deinterleave3", n, c, x, 2 * u);

    k->level_peak(y, n, &energy_k, &peak_k), level_peak_c(y, n, &energy_c, &peak_c);
    bad |= energy_k != energy_c || peak_k != peak_c;
    for (int32_t gain = 0; gain <= 32768; gain += 4096) {
        memcpy(a, y, 2 * u), memcpy(b, y, 2 * u);
        k->mix_q15(a, z, n, gain), mix_q15_c(b, z, n, gain);
        bad |= differ(k->name, "mix_q15", n, a, b, 2 * u);
        const int32_t step = n ? (int32_t)((int64_t)(32768 - 2 * gain) * 32768 / n) : 0;
        k->gain_ramp(a, n, gain, step), gain_ramp_c(b, n, gain, step);
        bad |= differ(k->name, "gain_ramp", n, a, b, 2 * u);
    }
    /* The text of n bytes, there and back; then with one byte of it replaced by every other. */
    const ptrdiff_t letters = (n + 2) / 3 * 4;
    uint8_t *text_k = room((size_t)letters), *text_c = room((size_t)letters);
    k->base64_encode(code, n, text_k), base64_encode_c(code, n, text_c);
    bad |= differ(k->name, "base64_encode", n, text_k, text_c, (size_t)letters);
    if (k->base64_decode(text_k, letters, code_k) != n)
        bad |= fprintf(stderr, "%s base64_decode refuses n=%td\n", k->name, n) > 0;
    bad |= differ(k->name, "base64_decode", n, code_k, code, u);
    for (int byte = 0; byte < 256 && n; byte++) {
        const ptrdiff_t at = (n * 7 + byte) % letters;
        const uint8_t kept = text_k[at];
        uint8_t *wide_k = room((size_t)(letters / 4 * 3)), *wide_c = room((size_t)(letters / 4 * 3));
        text_k[at] = (uint8_t)byte;
        const ptrdiff_t size_k = k->base64_decode(text_k, letters, wide_k);
        const ptrdiff_t size_c = base64_decode_c(text_k, letters, wide_c);
        bad |= size_k != size_c || (size_k > 0 && differ(k->name, "base64_decode", n, wide_k, wide_c, (size_t)size_k));
        text_k[at] = kept;
        free(wide_k), free(wide_c);
    }
    free(text_k), free(text_c);
    void *all[] = {code, code_k, code_c, x, y, z, out_k, out_c, plane, row_k, row_c, a, b, c};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    return bad;
}

int main(void)
{
    const kernel_table *tables[KERNEL_LEVELS];
    const int count = kernel_available(tables);
    int bad = 0;
    for (int i = 0; i < count; i++)
        for (ptrdiff_t n = 0; n <= 200; n++)
            bad |= check(tables[i], n);
    return bad;
}
