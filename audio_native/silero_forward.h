/* The forward pass for one vector width; included once for each by silero_net.h, which sets
 *   LEVEL(name)  VEC_FLOATS  TARGET  OUTS_WIDE  VSQRT(x)
 * and has no include guard for that reason. A group is one ("narrow") or two ("wide") vectors of calls. */

#define vec LEVEL(vec)
#define ivec LEVEL(ivec)
#define work LEVEL(work)

typedef float vec __attribute__((vector_size(VEC_FLOATS * 4), aligned(VEC_FLOATS * 4), may_alias));
typedef int32_t ivec __attribute__((vector_size(VEC_FLOATS * 4), may_alias));

/* Everything between the samples and the score, for the lanes of one group; used within one call of a function. */
static struct {
    vec samples[SILERO_PADDED * 2];
    vec re[128], im[128];
    vec power[SILERO_BINS * 6 * 2];     /* [bin][frame, a zero at either end][vector] */
    vec conv0[128 * 5 * 2];             /* four frames, a zero before */
    vec conv1[64 * 2 * 2];
    vec conv2[64 * 2];
    vec lstm_in[256 * 2];               /* features, then hidden */
    vec gates[512 * 2];
    vec cell[128 * 2];
} work;

SILERO_INLINE TARGET vec LEVEL(splat)(float x)
{
    return x - (vec){0};
}

SILERO_INLINE TARGET vec LEVEL(relu)(vec x)
{
    return (vec)((ivec)x & (ivec)(x > 0.0f));
}

/* exp by 2^n times a polynomial on [-ln2/2, ln2/2]; relative error below 2e-7 within +-87, clamped beyond. */
SILERO_INLINE TARGET vec LEVEL(exponential)(vec x)
{
    const vec low = LEVEL(splat)(-87.0f), high = LEVEL(splat)(87.0f), half = LEVEL(splat)(0.5f);
    x = (vec)(((ivec)x & (ivec)(x > low)) | ((ivec)low & ~(ivec)(x > low)));
    x = (vec)(((ivec)x & (ivec)(x < high)) | ((ivec)high & ~(ivec)(x < high)));
    vec t = x * 1.44269504088896341f;
    t += (vec)(((ivec)half & (ivec)(t >= 0.0f)) | ((ivec)-half & (ivec)(t < 0.0f)));
    const ivec n = __builtin_convertvector(t, ivec);
    const vec whole = __builtin_convertvector(n, vec);
    const vec r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    vec y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    return y * (vec)((n + 127) << 23);
}

SILERO_INLINE TARGET vec LEVEL(sigmoid)(vec x)
{
    return 1.0f / (1.0f + LEVEL(exponential)(-x));
}

SILERO_INLINE TARGET vec LEVEL(tangent)(vec x)
{
    return 2.0f * LEVEL(sigmoid)(x + x) - 1.0f;
}

#ifdef VSQRT
SILERO_INLINE TARGET vec LEVEL(root)(vec x)
{
    return VSQRT(x);
}
#else
SILERO_INLINE TARGET vec LEVEL(root)(vec x)
{
    for (int i = 0; i < VEC_FLOATS; i++)
        x[i] = sqrtf(x[i]);
    return x;
}
#endif

/* One 256-point frame to 129 magnitudes, for one vector of calls. `at` steps by `regs` vectors a sample. */
SILERO_INLINE TARGET void LEVEL(spectrum)(const silero_net *net, const vec *at, int regs, vec *power)
{
    vec *const re = work.re, *const im = work.im;
    for (int i = 0; i < 128; i++) {
        int j = 0;
        for (int bit = 0; bit < 7; bit++)
            j |= (i >> bit & 1) << (6 - bit);
        re[j] = at[2 * i * regs] * net->taper[2 * i];
        im[j] = at[(2 * i + 1) * regs] * net->taper[2 * i + 1];
    }
    /* The first two steps have only the factors 1 and -i. */
    for (int i = 0; i < 128; i += 4) {
        const vec ar = re[i] + re[i + 1], ai = im[i] + im[i + 1], br = re[i] - re[i + 1], bi = im[i] - im[i + 1];
        const vec cr = re[i + 2] + re[i + 3], ci = im[i + 2] + im[i + 3];
        const vec dr = re[i + 2] - re[i + 3], di = im[i + 2] - im[i + 3];
        re[i] = ar + cr, im[i] = ai + ci, re[i + 2] = ar - cr, im[i + 2] = ai - ci;
        re[i + 1] = br + di, im[i + 1] = bi - dr, re[i + 3] = br - di, im[i + 3] = bi + dr;
    }
    for (int half = 4; half < 128; half *= 2) {
        for (int k = 0; k < half; k++) {
            const float c = net->twiddle[2 * (k * (64 / half))], s = net->twiddle[2 * (k * (64 / half)) + 1];
            for (int i = k; i < 128; i += 2 * half) {
                const vec tr = re[i + half] * c - im[i + half] * s, ti = re[i + half] * s + im[i + half] * c;
                re[i + half] = re[i] - tr, im[i + half] = im[i] - ti;
                re[i] += tr, im[i] += ti;
            }
        }
    }
    power[0] = LEVEL(root)((re[0] + im[0]) * (re[0] + im[0]));
    power[128 * 6 * regs] = LEVEL(root)((re[0] - im[0]) * (re[0] - im[0]));
    for (int k = 1; k <= 64; k++) {
        /* Even and odd samples apart, then joined: X[k] = E + W O, X[128 - k] = conj(E - W O). */
        const float c = net->split[2 * k], s = net->split[2 * k + 1];
        const vec er = (re[k] + re[128 - k]) * 0.5f, ei = (im[k] - im[128 - k]) * 0.5f;
        const vec or = (im[k] + im[128 - k]) * 0.5f, oi = (re[128 - k] - re[k]) * 0.5f;
        const vec wr = or * c - oi * s, wi = or * s + oi * c;
        const vec pr = er + wr, pi = ei + wi, qr = er - wr, qi = ei - wi;
        power[k * 6 * regs] = LEVEL(root)(pr * pr + pi * pi);
        power[(128 - k) * 6 * regs] = LEVEL(root)(qr * qr + qi * qi);
    }
}

/* dst[o] = sum over c, j of w[o][c * taps + j] x[c * step + j] + bias[o], for `outs` rows beginning at `w`, in `regs`
 * vectors. `outs`, `taps`, `regs` are constants where this is used, so that the sums stay in registers. */
SILERO_INLINE TARGET void LEVEL(rows)(const float *w, const float *bias, const vec *x, int channels, int step, int taps,
                                      int outs, int regs, vec *sum)
{
    for (int o = 0; o < outs; o++)
        for (int r = 0; r < regs; r++)
            sum[o * regs + r] = LEVEL(splat)(bias[o]);
    for (int c = 0; c < channels; c++, x += step * regs)
        for (int j = 0; j < taps; j++, w += 8)
            for (int r = 0; r < regs; r++) {
                const vec in = x[j * regs + r];
                for (int o = 0; o < outs; o++)
                    sum[o * regs + r] += in * w[o];
            }
}

/* A convolution with ReLU: dst[(o * dst_step + t) * regs + r]. `stride` in frames. */
SILERO_INLINE TARGET void LEVEL(convolve)(const float *w, const float *bias, int rows, const vec *x, int channels,
                                          int step, int taps, int frames, int stride, int outs, int regs, vec *dst,
                                          int dst_step)
{
    vec sum[16];
    for (int block = 0; block < rows; block += 8)
        for (int part = 0; part < 8; part += outs)
            for (int t = 0; t < frames; t++) {
                LEVEL(rows)(w + (ptrdiff_t)block * channels * taps + part, bias + block + part, x + t * stride * regs,
                            channels, step, taps, outs, regs, sum);
                for (int o = 0; o < outs; o++)
                    for (int r = 0; r < regs; r++)
                        dst[((block + part + o) * dst_step + t) * regs + r] = LEVEL(relu)(sum[o * regs + r]);
            }
}

SILERO_INLINE TARGET void LEVEL(lstm)(const silero_net *net, int outs, int regs)
{
    vec sum[16];
    for (int block = 0; block < 512; block += 8)
        for (int part = 0; part < 8; part += outs) {
            LEVEL(rows)(net->lstm + (ptrdiff_t)block * 256 + part, net->bias_lstm + block + part, work.lstm_in, 256, 1, 1,
                        outs, regs, sum);
            for (int i = 0; i < outs * regs; i++)
                work.gates[(block + part) * regs + i] = sum[i];
        }
    /* Gates in the order input, forget, cell, output. */
    for (int i = 0; i < 128 * regs; i++) {
        const vec *gate = work.gates;
        const vec cell = LEVEL(sigmoid)(gate[128 * regs + i]) * work.cell[i] +
                         LEVEL(sigmoid)(gate[i]) * LEVEL(tangent)(gate[256 * regs + i]);
        work.cell[i] = cell;
        work.lstm_in[128 * regs + i] = LEVEL(sigmoid)(gate[384 * regs + i]) * LEVEL(tangent)(cell);
    }
}

/* Samples and states of `count` calls into lanes; the lanes that are left over compute on zeros. */
SILERO_INLINE TARGET void LEVEL(gather)(int count, const int16_t *const *audio, silero_state *const *state, int regs)
{
    const int lanes = regs * VEC_FLOATS;
    float *const samples = (float *)work.samples, *const in = (float *)work.lstm_in, *const cell = (float *)work.cell;
    for (int i = 0; i < count; i++) {
        for (int n = 0; n < SILERO_CONTEXT; n++)
            samples[n * lanes + i] = state[i]->context[n];
        for (int n = 0; n < SILERO_WINDOW; n++)
            samples[(SILERO_CONTEXT + n) * lanes + i] = (float)audio[i][n] * (1.0f / 32768.0f);
        for (int n = 0; n < 128; n++)
            in[(128 + n) * lanes + i] = state[i]->hidden[n], cell[n * lanes + i] = state[i]->cell[n];
    }
    for (int i = count; i < lanes; i++) {
        for (int n = 0; n < SILERO_INPUT; n++)
            samples[n * lanes + i] = 0.0f;
        for (int n = 0; n < 128; n++)
            in[(128 + n) * lanes + i] = cell[n * lanes + i] = 0.0f;
    }
    for (int n = 0; n < 64; n++)
        for (int r = 0; r < regs; r++)
            work.samples[(SILERO_INPUT + n) * regs + r] = work.samples[(SILERO_INPUT - 2 - n) * regs + r];
}

SILERO_INLINE TARGET void LEVEL(scatter)(int count, silero_state *const *state, int regs)
{
    const int lanes = regs * VEC_FLOATS;
    const float *const samples = (float *)work.samples, *const in = (float *)work.lstm_in;
    const float *const cell = (float *)work.cell;
    for (int i = 0; i < count; i++) {
        for (int n = 0; n < SILERO_CONTEXT; n++)
            state[i]->context[n] = samples[(SILERO_WINDOW + n) * lanes + i];
        for (int n = 0; n < 128; n++)
            state[i]->hidden[n] = in[(128 + n) * lanes + i], state[i]->cell[n] = cell[n * lanes + i];
    }
}

SILERO_INLINE TARGET void LEVEL(group)(const silero_net *net, int count, const int16_t *const *audio,
                                       silero_state *const *state, float *score, int regs, int outs)
{
    LEVEL(gather)(count, audio, state, regs);
    for (int frame = 0; frame < 4; frame++)
        for (int r = 0; r < regs; r++)
            LEVEL(spectrum)(net, work.samples + frame * 128 * regs + r, regs, work.power + (1 + frame) * regs + r);
    for (int bin = 0; bin < SILERO_BINS; bin++)
        for (int r = 0; r < regs; r++)
            work.power[bin * 6 * regs + r] = work.power[(bin * 6 + 5) * regs + r] = (vec){0};
    for (int c = 0; c < 128; c++)
        for (int r = 0; r < regs; r++)
            work.conv0[c * 5 * regs + r] = (vec){0};
    LEVEL(convolve)(net->conv0, net->bias0, 128, work.power, SILERO_BINS, 6, 3, 4, 1, outs, regs, work.conv0 + regs, 5);
    LEVEL(convolve)(net->conv1, net->bias1, 64, work.conv0, 128, 5, 3, 2, 2, outs, regs, work.conv1, 2);
    LEVEL(convolve)(net->conv2, net->bias2, 64, work.conv1, 64, 2, 2, 1, 1, outs, regs, work.conv2, 1);
    LEVEL(convolve)(net->conv3, net->bias3, 128, work.conv2, 64, 1, 1, 1, 1, outs, regs, work.lstm_in, 1);
    LEVEL(lstm)(net, outs, regs);
    for (int r = 0; r < regs; r++) {
        vec sum = LEVEL(splat)(net->bias_out);
        for (int i = 0; i < 128; i++)
            sum += LEVEL(relu)(work.lstm_in[(128 + i) * regs + r]) * net->out[i];
        const vec all = LEVEL(sigmoid)(sum);
        for (int i = 0; i < VEC_FLOATS && r * VEC_FLOATS + i < count; i++)
            score[r * VEC_FLOATS + i] = all[i];
    }
    LEVEL(scatter)(count, state, regs);
}

TARGET static void LEVEL(group_narrow)(const silero_net *net, int count, const int16_t *const *audio,
                                       silero_state *const *state, float *score)
{
    LEVEL(group)(net, count, audio, state, score, 1, 8);
}

TARGET static void LEVEL(group_wide)(const silero_net *net, int count, const int16_t *const *audio,
                                     silero_state *const *state, float *score)
{
    LEVEL(group)(net, count, audio, state, score, 2, OUTS_WIDE);
}

#undef vec
#undef ivec
#undef work
#undef LEVEL
#undef VEC_FLOATS
#undef TARGET
#undef OUTS_WIDE
#undef VSQRT
