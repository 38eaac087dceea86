// All kernels, in one module.

#include "device.cuh"
#include "linear.cuh"
#include "step.cuh"
#include "norm.cu"
#include "gemv.cu"
#include "prepare.cu"
#include "gemm.cu"
#include "wgmma.cu"
#include "attend.cu"
#include "head.cu"
#include "mixed.cu"
#include "mega.cu"
