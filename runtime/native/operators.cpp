// Our operators, as ONNX Runtime sees them: domain "qmdd", all tensors channels last.
//
//   QuantConv(x uint8, weights uint8 packed, multiplier, bias, table?, shift_in?, slope?,
//             shift_out?, addend0?, addend1?) -> (codes uint8?, z float?)      conv.h
//   Threshold(x float, table) -> codes uint8        the codes of floats that no QuantConv made
//   Cells(image uint8 [N, 3, H, W]) -> uint8 [N, H/2 + halo, W/2 + halo, channels]
//             2x2 pixels side by side: the folded stem's convolution of them has stride 1
//   MeanPool(x float) -> float                      averages of 1 or 2 pixels a side
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>

#include "conv.h"
#include "float_mode.h"
#include "mean_pool.h"
#include "ort_api.h"
#include "pixel_cells.h"

namespace qmdd {
namespace {

const OrtApi* g_api = nullptr;
constexpr int kFail = 1;  // ORT_FAIL

OrtStatus* status_from(const char* name, const char* what) {
  const std::string line = std::string("qmdd::") + name + ": " + what;
  return ort::CreateStatus::of(g_api)(kFail, line.c_str());
}

void check(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string message = ort::GetErrorMessage::of(g_api)(status);
  ort::ReleaseStatus::of(g_api)(status);
  throw std::runtime_error(message);
}

struct Tensor {
  void* data = nullptr;
  int64_t dims[4] = {0, 0, 0, 0};
  size_t rank = 0;
  explicit operator bool() const { return data != nullptr; }
  template <class T>
  const T* as() const { return static_cast<const T*>(data); }
  int64_t size() const {
    int64_t all = 1;
    for (size_t i = 0; i < rank; ++i) all *= dims[i];
    return all;
  }
};

Tensor tensor_of(const OrtValue* value) {
  Tensor tensor;
  if (value == nullptr) return tensor;
  OrtTensorTypeAndShapeInfo* shape = nullptr;
  check(ort::GetTensorTypeAndShape::of(g_api)(value, &shape));
  const auto release = ort::ReleaseShape::of(g_api);
  const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(release)> held(shape, release);
  check(ort::GetDimensionsCount::of(g_api)(shape, &tensor.rank));
  if (tensor.rank > 4) throw std::invalid_argument("a tensor of more than 4 dimensions");
  check(ort::GetDimensions::of(g_api)(shape, tensor.dims, tensor.rank));
  check(ort::GetTensorMutableData::of(g_api)(const_cast<OrtValue*>(value), &tensor.data));
  return tensor;
}

Tensor input(const OrtKernelContext* context, size_t index) {
  const OrtValue* value = nullptr;
  check(ort::GetInput::of(g_api)(context, index, &value));
  return tensor_of(value);
}

void* output(OrtKernelContext* context, size_t index, const int64_t (&dims)[4]) {
  OrtValue* value = nullptr;
  check(ort::GetOutput::of(g_api)(context, index, dims, 4, &value));
  if (value == nullptr) return nullptr;
  void* data = nullptr;
  check(ort::GetTensorMutableData::of(g_api)(value, &data));
  return data;
}

Tensor constant(const OrtKernelInfo* info, size_t index) {
  int is_constant = 0;
  const OrtValue* value = nullptr;
  OrtStatus* status = ort::GetConstantInput::of(g_api)(info, index, &is_constant, &value);
  if (status != nullptr) {  // an optional input that is not there
    ort::ReleaseStatus::of(g_api)(status);
    return {};
  }
  return is_constant ? tensor_of(value) : Tensor{};
}

int64_t integer(const OrtKernelInfo* info, const char* name) {
  int64_t value = 0;
  check(ort::GetAttributeInt::of(g_api)(info, name, &value));
  return value;
}

template <size_t N>
void integers(const OrtKernelInfo* info, const char* name, int64_t (&values)[N]) {
  size_t count = N;
  check(ort::GetAttributeInts::of(g_api)(info, name, values, &count));
  if (count != N) throw std::invalid_argument(std::string(name) + ": wrong number of integers");
}

// The kernels that all operators of this process use; QMDD_KERNELS names others than the fastest.
const Kernels& kernels() {
  const char* name = std::getenv("QMDD_KERNELS");
  if (name == nullptr || *name == '\0') {
    size_t count = 0;
    return *available_kernels(&count)[0];
  }
  const Kernels* found = find_kernels(name);
  if (found == nullptr)
    throw std::invalid_argument(std::string("QMDD_KERNELS=") + name + ": not on this processor");
  return *found;
}

// An item of work on any of ONNX Runtime's threads; what it throws (memory runs out) is kept, since
// nothing may be thrown across that library.
struct Items {
  void (*body)(void*, size_t);
  void* user;
  std::mutex mutex;
  std::exception_ptr error;

  static void run(void* self, size_t index) noexcept {
    Items& items = *static_cast<Items*>(self);
    const PlainFloats plain;
    try {
      items.body(items.user, index);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(items.mutex);
      items.error = std::current_exception();
    }
  }
};

void parallel_for(void* context, void (*body)(void*, size_t), size_t count, void* user) {
  Items items{body, user, {}, {}};
  // 0: it hands neighbouring items to one thread, in as many batches as it likes.
  check(ort::ParallelFor::of(g_api)(static_cast<const OrtKernelContext*>(context), Items::run, count,
                                    0, &items));
  if (items.error) std::rethrow_exception(items.error);
}

struct QuantConv {
  static constexpr const char* name = "QuantConv";
  static constexpr size_t inputs = 10, outputs = 2;
  static OrtElementType input_type(size_t i) { return i < 2 ? kOrtUint8 : kOrtFloat; }
  static OrtArity input_arity(size_t i) { return i < 4 ? kOrtRequired : kOrtOptional; }
  static OrtElementType output_type(size_t i) { return i == 0 ? kOrtUint8 : kOrtFloat; }
  static OrtArity output_arity(size_t) { return kOrtOptional; }

  explicit QuantConv(const OrtKernelInfo* info) {
    ConvSpec spec;
    spec.in_channels = integer(info, "in_channels");
    spec.out_channels = integer(info, "out_channels");
    spec.groups = integer(info, "groups");
    integers(info, "kernel", spec.kernel);
    integers(info, "stride", spec.stride);
    integers(info, "pads", spec.pads);
    integers(info, "in_halo", spec.in_halo);
    spec.out_halo = integer(info, "out_halo");
    spec.top_code = integer(info, "top_code");
    spec.pad_code = integer(info, "pad_code");
    spec.out_pad_code = integer(info, "out_pad_code");
    spec.bits = integer(info, "bits");
    spec.first = integer(info, "first");
    spec.step = integer(info, "step");
    spec.relu = integer(info, "relu");
    int64_t pool[3];
    integers(info, "pool", pool);
    spec.pool_size = pool[0];
    spec.pool_stride = pool[1];
    spec.pool_pad = pool[2];
    float factors[2];
    size_t factor_count = 2;
    check(ort::GetAttributeFloats::of(g_api)(info, "factors", factors, &factor_count));
    ConvData data;
    const Tensor weights = constant(info, 1);
    data.weights = weights.as<uint8_t>();
    data.weight_bytes = size_t(weights.size());
    const int64_t channels = spec.out_channels;
    data.multiplier = row(constant(info, 2), channels, true);
    data.bias = row(constant(info, 3), channels, true);
    const Tensor table = constant(info, 4);
    if (table) {
      if (table.rank != 2) throw std::invalid_argument("the table must be [channels or 1, n]");
      spec.table_rows = table.dims[0];
      spec.thresholds = table.dims[1];
      data.table = table.as<float>();
    }
    data.shift_in = row(constant(info, 5), channels, false);
    data.slope = row(constant(info, 6), channels, false);
    data.shift_out = row(constant(info, 7), channels, false);
    addends_ = integer(info, "addends");
    if (!weights || addends_ < 0 || addends_ > 2)
      throw std::invalid_argument("needs constant weights and at most two addends");
    if (size_t(addends_) > factor_count)
      throw std::invalid_argument("needs a factor for each addend");
    spec.factors.assign(factors, factors + addends_);
    conv_ = std::make_unique<Conv>(spec, data, kernels());
  }

  static const float* row(const Tensor& tensor, int64_t channels, bool needed) {
    if (needed && !tensor) throw std::invalid_argument("needs a constant multiplier and bias");
    if (tensor && tensor.size() != channels)
      throw std::invalid_argument("a constant must have one number a channel");
    return tensor.as<float>();
  }

  void compute(OrtKernelContext* context) const {
    const ConvSpec& spec = conv_->spec();
    const Tensor x = input(context, 0);
    if (x.rank != 4 || x.dims[3] != spec.in_channels)
      throw std::invalid_argument("codes must be [n, height, width, channels]");
    ConvTensors tensors;
    tensors.x = x.as<uint8_t>();
    tensors.n = x.dims[0];
    tensors.padded_height = x.dims[1];
    tensors.padded_width = x.dims[2];
    const Extent out = conv_->output(x.dims[1], x.dims[2]);
    const int64_t channels = spec.out_channels, halo = 2 * spec.out_halo;
    for (int64_t i = 0; i < addends_; ++i) {
      const Tensor addend = input(context, size_t(8 + i));
      if (addend.rank != 4 || addend.dims[0] != tensors.n || addend.dims[1] != out.height ||
          addend.dims[2] != out.width || addend.dims[3] != channels)
        throw std::invalid_argument("an addend must have the shape of the result");
      tensors.addends.push_back(addend.as<float>());
    }
    if (spec.thresholds > 0) {
      tensors.codes = static_cast<uint8_t*>(
          output(context, 0, {tensors.n, out.height + halo, out.width + halo, channels}));
    }
    tensors.z = static_cast<float*>(output(context, 1, {tensors.n, out.height, out.width, channels}));
    conv_->run(tensors, {context, parallel_for});
  }

 private:
  std::unique_ptr<Conv> conv_;
  int64_t addends_ = 0;
};

struct Threshold {
  static constexpr const char* name = "Threshold";
  static constexpr size_t inputs = 2, outputs = 1;
  static OrtElementType input_type(size_t) { return kOrtFloat; }
  static OrtArity input_arity(size_t) { return kOrtRequired; }
  static OrtElementType output_type(size_t) { return kOrtUint8; }
  static OrtArity output_arity(size_t) { return kOrtRequired; }

  explicit Threshold(const OrtKernelInfo* info) : kernels_(kernels()) {
    halo_ = integer(info, "out_halo");
    pad_code_ = integer(info, "out_pad_code");
    const Tensor table = constant(info, 1);
    if (!table || table.rank != 2 || table.dims[0] < 1 || table.dims[1] < 1 ||
        table.dims[1] > kMaxThresholds || halo_ < 0 || halo_ > 64 || pad_code_ < 0 ||
        pad_code_ > 255)
      throw std::invalid_argument("needs a constant table, [channels or 1, 1 to 255]");
    rows_ = table.dims[0];
    thresholds_ = table.dims[1];
    width_ = (rows_ + kMaxPanel - 1) / kMaxPanel * kMaxPanel;
    table_.assign(size_t(thresholds_ * width_), 0.0f);
    for (int64_t i = 0; i < thresholds_; ++i) {
      for (int64_t c = 0; c < (rows_ == 1 ? width_ : rows_); ++c) {
        const int64_t row = rows_ == 1 ? 0 : c;
        table_[size_t(i * width_ + c)] = table.as<float>()[row * thresholds_ + i];
      }
    }
  }

  void compute(OrtKernelContext* context) const {
    const Tensor x = input(context, 0);
    if (x.rank != 4 || (rows_ != 1 && x.dims[3] != rows_))
      throw std::invalid_argument("x must be [n, height, width, channels]");
    struct Work {
      const Threshold& self;
      const float* x;
      uint8_t* codes;
      int64_t height, width, channels;
    };
    const int64_t height = x.dims[1], width = x.dims[2], channels = x.dims[3];
    auto* codes = static_cast<uint8_t*>(
        output(context, 0, {x.dims[0], height + 2 * halo_, width + 2 * halo_, channels}));
    fill_halo(codes, x.dims[0], height, width, channels, halo_, uint8_t(pad_code_));
    Work work{*this, x.as<float>(), codes, height, width, channels};
    parallel_for(
        context,
        [](void* user, size_t index) {
          const Work& w = *static_cast<Work*>(user);
          const Threshold& self = w.self;
          const int64_t image = int64_t(index) / w.height, row = int64_t(index) % w.height;
          const int64_t halo = self.halo_;
          const int64_t place =
              (image * (w.height + 2 * halo) + row + halo) * (w.width + 2 * halo) + halo;
          FinishArgs f{};
          f.pixel_in = f.pixel = w.channels;
          f.count = w.width;
          f.table_stride = self.width_;
          f.thresholds = self.thresholds_;
          for (int64_t c = 0; c < w.channels; c += kMaxPanel) {
            f.z_in = w.x + int64_t(index) * w.width * w.channels + c;
            f.channels = std::min<int64_t>(kMaxPanel, w.channels - c);
            f.table = self.table_.data() + (self.rows_ == 1 ? 0 : c);
            f.codes = w.codes + place * w.channels + c;
            self.kernels_.finish(f);
          }
        },
        size_t(x.dims[0] * height), &work);
  }

 private:
  const Kernels& kernels_;
  int64_t rows_ = 0, halo_ = 0, pad_code_ = 0, thresholds_ = 0, width_ = 0;
  std::vector<float, Aligned<float>> table_;
};

struct Cells {
  static constexpr const char* name = "Cells";
  static constexpr size_t inputs = 1, outputs = 1;
  static OrtElementType input_type(size_t) { return kOrtUint8; }
  static OrtArity input_arity(size_t) { return kOrtRequired; }
  static OrtElementType output_type(size_t) { return kOrtUint8; }
  static OrtArity output_arity(size_t) { return kOrtRequired; }

  explicit Cells(const OrtKernelInfo* info) {
    spec_.repeats = integer(info, "repeats");
    spec_.channels = integer(info, "channels");
    integers(info, "halo", spec_.halo);
    check_cells(spec_);
  }

  void compute(OrtKernelContext* context) const {
    const Tensor image = input(context, 0);
    if (image.rank != 4 || image.dims[1] != 3 || image.dims[2] % 2 || image.dims[3] % 2)
      throw std::invalid_argument("an image must be [n, 3, height, width], both sides even");
    const int64_t height = image.dims[2] / 2 + spec_.halo[0] + spec_.halo[2];
    const int64_t width = image.dims[3] / 2 + spec_.halo[1] + spec_.halo[3];
    void* cells = output(context, 0, {image.dims[0], height, width, spec_.channels});
    make_cells(spec_, image.as<uint8_t>(), image.dims[0], image.dims[2], image.dims[3],
               static_cast<uint8_t*>(cells), {context, parallel_for});
  }

 private:
  CellSpec spec_;
};

struct MeanPool {
  static constexpr const char* name = "MeanPool";
  static constexpr size_t inputs = 1, outputs = 1;
  static OrtElementType input_type(size_t) { return kOrtFloat; }
  static OrtArity input_arity(size_t) { return kOrtRequired; }
  static OrtElementType output_type(size_t) { return kOrtFloat; }
  static OrtArity output_arity(size_t) { return kOrtRequired; }

  explicit MeanPool(const OrtKernelInfo* info) {
    integers(info, "window", spec_.window);
    spec_.round_up = integer(info, "round_up") != 0;
    check_mean_pool(spec_);
  }

  void compute(OrtKernelContext* context) const {
    const Tensor x = input(context, 0);
    if (x.rank != 4) throw std::invalid_argument("x must be [n, height, width, channels]");
    const Extent out = mean_pool_output(spec_, x.dims[1], x.dims[2]);
    void* to = output(context, 0, {x.dims[0], out.height, out.width, x.dims[3]});
    mean_pool(spec_, x.as<float>(), x.dims[0], x.dims[1], x.dims[2], x.dims[3],
              static_cast<float*>(to), {context, parallel_for});
  }

 private:
  MeanPoolSpec spec_;
};

// An operator of ONNX Runtime around one of the classes above.
template <class Op>
struct Registered : OrtCustomOp {
  Registered() : OrtCustomOp{} {
    version = kOrtApiVersion;
    GetName = [](const OrtCustomOp*) { return Op::name; };
    GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
    GetInputTypeCount = [](const OrtCustomOp*) { return Op::inputs; };
    GetInputType = [](const OrtCustomOp*, size_t i) { return Op::input_type(i); };
    GetInputCharacteristic = [](const OrtCustomOp*, size_t i) { return Op::input_arity(i); };
    GetOutputTypeCount = [](const OrtCustomOp*) { return Op::outputs; };
    GetOutputType = [](const OrtCustomOp*, size_t i) { return Op::output_type(i); };
    GetOutputCharacteristic = [](const OrtCustomOp*, size_t i) { return Op::output_arity(i); };
    GetInputMemoryType = [](const OrtCustomOp*, size_t) { return 0; };  // the CPU's
    GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
    GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
    GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
    GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
    GetStartVersion = [](const OrtCustomOp*) { return 1; };
    GetEndVersion = [](const OrtCustomOp*) { return 1; };
    CreateKernelV2 = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo* info,
                        void** kernel) -> OrtStatus* {
      return guarded([&] { *kernel = new Op(info); });
    };
    KernelComputeV2 = [](void* kernel, OrtKernelContext* context) -> OrtStatus* {
      return guarded([&] { static_cast<const Op*>(kernel)->compute(context); });
    };
    KernelDestroy = [](void* kernel) { delete static_cast<Op*>(kernel); };
  }

  // No exception may cross the C interface.
  template <class Body>
  static OrtStatus* guarded(Body body) {
    try {
      body();
      return nullptr;
    } catch (const std::exception& error) {
      return status_from(Op::name, error.what());
    } catch (...) {
      return status_from(Op::name, "failed");
    }
  }
};

OrtCustomOpDomain* made_domain(const OrtApi* api) {
  static const Registered<QuantConv> conv;
  static const Registered<Threshold> threshold;
  static const Registered<Cells> cells;
  static const Registered<MeanPool> mean_pool;
  g_api = api;
  OrtCustomOpDomain* made = nullptr;
  check(ort::CreateCustomOpDomain::of(api)("qmdd", &made));
  for (const OrtCustomOp* op :
       {static_cast<const OrtCustomOp*>(&conv), static_cast<const OrtCustomOp*>(&threshold),
        static_cast<const OrtCustomOp*>(&cells), static_cast<const OrtCustomOp*>(&mean_pool)}) {
    check(ort::CustomOpDomainAdd::of(api)(made, op));
  }
  return made;
}

}  // namespace
}  // namespace qmdd

// What ONNX Runtime calls when the library is registered with a session's options.
extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace qmdd;
  const OrtApi* api = base->GetApi(kOrtApiVersion);
  if (api == nullptr) {
    const std::string line = std::string("qmdd's operators need ONNX Runtime 1.17 or newer, not ") +
                             base->GetVersionString() + "; upgrade onnxruntime";
    return ort::CreateStatus::of(base->GetApi(1))(kFail, line.c_str());
  }
  try {
    // Once: sessions refer to the operators as long as the process lives, and two threads may make
    // their first sessions at the same time.
    static OrtCustomOpDomain* const domain = made_domain(api);
    return ort::AddCustomOpDomain::of(api)(options, domain);
  } catch (const std::exception& error) {
    return ort::CreateStatus::of(api)(kFail, error.what());
  }
}
