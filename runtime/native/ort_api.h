// The part of ONNX Runtime's C interface that is used here, and no more.
//
// OrtApi is a table of functions whose order never changes: what is new is appended. So a function
// is its place in the table (kOrt...), and kOrtApiVersion the release that has all of them; see
// "ONNX Runtime C API" in its documentation. load_ort() checks the library that loads us.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct OrtStatus;
struct OrtValue;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtTensorTypeAndShapeInfo;
struct OrtShapeInferContext;

struct OrtApi {
  const void* functions[1];
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

enum OrtElementType : int { kOrtFloat = 1, kOrtUint8 = 2 };
enum OrtArity : int { kOrtRequired = 0, kOrtOptional = 1 };

struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  OrtElementType (*GetInputType)(const OrtCustomOp*, size_t);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  OrtElementType (*GetOutputType)(const OrtCustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void*, OrtKernelContext*);
  void (*KernelDestroy)(void*);
  OrtArity (*GetInputCharacteristic)(const OrtCustomOp*, size_t);
  OrtArity (*GetOutputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetInputMemoryType)(const OrtCustomOp*, size_t);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void**);
  OrtStatus* (*KernelComputeV2)(void*, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, OrtShapeInferContext*);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
};

}  // extern "C"

namespace qmdd {

// KernelContext_ParallelFor, the newest function here, came with 1.17.
constexpr uint32_t kOrtApiVersion = 17;

// Places in OrtApi, with their types.
template <size_t Place, class Function>
struct OrtFunction {
  static Function* of(const OrtApi* api) {
    return reinterpret_cast<Function*>(const_cast<void*>(api->functions[Place]));
  }
};

namespace ort {
using CreateStatus = OrtFunction<0, OrtStatus*(int code, const char* message)>;
using GetErrorMessage = OrtFunction<2, const char*(const OrtStatus*)>;
using CreateCustomOpDomain = OrtFunction<26, OrtStatus*(const char*, OrtCustomOpDomain**)>;
using CustomOpDomainAdd = OrtFunction<27, OrtStatus*(OrtCustomOpDomain*, const OrtCustomOp*)>;
using AddCustomOpDomain = OrtFunction<28, OrtStatus*(OrtSessionOptions*, OrtCustomOpDomain*)>;
using GetTensorMutableData = OrtFunction<51, OrtStatus*(OrtValue*, void**)>;
using GetDimensionsCount = OrtFunction<61, OrtStatus*(const OrtTensorTypeAndShapeInfo*, size_t*)>;
using GetDimensions =
    OrtFunction<62, OrtStatus*(const OrtTensorTypeAndShapeInfo*, int64_t*, size_t)>;
using GetTensorTypeAndShape =
    OrtFunction<65, OrtStatus*(const OrtValue*, OrtTensorTypeAndShapeInfo**)>;
using GetAttributeFloat = OrtFunction<85, OrtStatus*(const OrtKernelInfo*, const char*, float*)>;
using GetAttributeInt = OrtFunction<86, OrtStatus*(const OrtKernelInfo*, const char*, int64_t*)>;
using GetInput = OrtFunction<90, OrtStatus*(const OrtKernelContext*, size_t, const OrtValue**)>;
using GetOutput =
    OrtFunction<91, OrtStatus*(OrtKernelContext*, size_t, const int64_t*, size_t, OrtValue**)>;
using ReleaseStatus = OrtFunction<93, void(OrtStatus*)>;
using ReleaseShape = OrtFunction<99, void(OrtTensorTypeAndShapeInfo*)>;
using GetAttributeFloats =
    OrtFunction<162, OrtStatus*(const OrtKernelInfo*, const char*, float*, size_t*)>;
using GetAttributeInts =
    OrtFunction<163, OrtStatus*(const OrtKernelInfo*, const char*, int64_t*, size_t*)>;
using GetConstantInput =
    OrtFunction<249, OrtStatus*(const OrtKernelInfo*, size_t, int* constant, const OrtValue**)>;
using ParallelFor = OrtFunction<274, OrtStatus*(const OrtKernelContext*, void (*)(void*, size_t),
                                                size_t total, size_t batches, void* user)>;
}  // namespace ort

}  // namespace qmdd
