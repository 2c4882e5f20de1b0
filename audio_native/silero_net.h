/* Silero VAD (16 kHz) as straight-line C over lanes: one lane is one call, so that every step of the network is the same
 * arithmetic on whole vectors.
 *
 *   576 samples (64 of the window before, 512 new), reflected by 64 at the end
 *     -> 4 frames of a 256-point windowed DFT, hop 128 -> 129 magnitudes
 *     -> conv 129-128 k3 | conv 128-64 k3 /2 | conv 64-64 k3 /2 | conv 64-128 k3, each with ReLU
 *     -> LSTM 128 -> ReLU -> 1 -> sigmoid
 *
 * The DFT is a complex FFT of half the length (the exported model multiplies by a matrix, 40 % of its arithmetic).
 * Source: the graph of silero_vad.onnx (MIT), branch for 16 kHz. */
#ifndef TALKSPURT_SILERO_NET_H
#define TALKSPURT_SILERO_NET_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SILERO_WINDOW 512
#define SILERO_CONTEXT 64
#define SILERO_INPUT (SILERO_WINDOW + SILERO_CONTEXT)
#define SILERO_PADDED (SILERO_INPUT + 64)
#define SILERO_BINS 129
#define SILERO_HIDDEN 128
#define SILERO_LANES_MAX 32

/* Rows of a weight matrix in blocks of eight: [block][input][8], so that a step reads eight neighbours. */
typedef struct {
    float taper[256];            /* the window of the DFT */
    float twiddle[128];          /* of the 128-point FFT: cos, -sin of 2 pi k / 128, k < 64 */
    float split[130];            /* of the last step: cos, -sin of 2 pi k / 256, k <= 64 */
    float conv0[16 * SILERO_BINS * 3 * 8], bias0[128];
    float conv1[8 * 128 * 3 * 8], bias1[64];
    float conv2[8 * 64 * 2 * 8], bias2[64];   /* the tap that only ever sees padding is left out */
    float conv3[16 * 64 * 8], bias3[128];     /* one frame is left: the middle tap alone */
    float lstm[64 * 256 * 8], bias_lstm[512]; /* inputs: 128 features, 128 hidden; both biases added */
    float out[128], bias_out;
} silero_net;

/* What one call keeps between two windows. */
typedef struct {
    float context[SILERO_CONTEXT];
    float hidden[SILERO_HIDDEN];
    float cell[SILERO_HIDDEN];
} silero_state;

/* Scores `count` <= lanes calls: audio[i] points to 512 samples, state[i] is brought forward, score[i] in 0..1. */
typedef void (*silero_group)(const silero_net *net, int count, const int16_t *const *audio, silero_state *const *state,
                             float *score);

typedef struct {
    const char *name;
    int narrow_lanes, wide_lanes;
    silero_group narrow, wide;
} silero_level;

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define SILERO_INLINE static inline __attribute__((always_inline, unused))

/* Baseline: SSE2, NEON, or whatever the compiler makes of four floats. */
#define LEVEL(name) name##_base
#define VEC_FLOATS 4
#define TARGET
#define OUTS_WIDE 4
#if defined(__x86_64__)
#define VSQRT(x) ((vec)_mm_sqrt_ps((__m128)(x)))
#endif
#include "silero_forward.h"

#if defined(__x86_64__)
#define LEVEL(name) name##_avx2
#define VEC_FLOATS 8
#define TARGET __attribute__((target("avx2,fma")))
#define OUTS_WIDE 4
#define VSQRT(x) ((vec)_mm256_sqrt_ps((__m256)(x)))
#include "silero_forward.h"

#define LEVEL(name) name##_avx512
#define VEC_FLOATS 16
#define TARGET __attribute__((target("avx512f,avx512dq,fma")))
#define OUTS_WIDE 8
#define VSQRT(x) ((vec)_mm512_sqrt_ps((__m512)(x)))
#include "silero_forward.h"
#endif

/* Fills `out` with what this processor has, best first; returns how many. */
static int silero_levels(silero_level *out)
{
    int n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
        out[n++] = (silero_level){"avx512", 16, 32, group_narrow_avx512, group_wide_avx512};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        out[n++] = (silero_level){"avx2", 8, 16, group_narrow_avx2, group_wide_avx2};
    out[n++] = (silero_level){"sse2", 4, 8, group_narrow_base, group_wide_base};
#else
    out[n++] = (silero_level){"c", 4, 8, group_narrow_base, group_wide_base};
#endif
    return n;
}

#endif
