/* Which levels this build has and which of them this processor can run, best first. */
#ifndef TALKSPURT_KERNEL_LEVELS_H
#define TALKSPURT_KERNEL_LEVELS_H

#include "kernel_c.h"
#if defined(__x86_64__) && !defined(KERNEL_PORTABLE_ONLY)
#include "kernel_avx2.h"
#include "kernel_sse2.h"
#endif

#define KERNEL_LEVELS 3

/* Returns the number of tables written to out, which has room for KERNEL_LEVELS. */
static int kernel_available(const kernel_table **out)
{
    int n = 0;
#if defined(__x86_64__) && !defined(KERNEL_PORTABLE_ONLY)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        out[n++] = &KERNEL_AVX2;
    out[n++] = &KERNEL_SSE2;
#endif
    out[n++] = &KERNEL_C;
    return n;
}

#endif
