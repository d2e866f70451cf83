// The operators as ONNX Runtime sees them, behind a table of functions of our own in place of it:
// models whose attributes, constants and inputs lie are refused, with nothing read beside them.
#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <string>

#include "fuzz.h"
#include "ort_api.h"

// What ONNX Runtime keeps behind its names, as little as will do.
struct OrtStatus {
  std::string message;
};
struct OrtValue {
  std::vector<int64_t> dims;
  std::unique_ptr<uint8_t[]> data;  // of exactly its size: beside it lies what must not be read
};
struct OrtTensorTypeAndShapeInfo {
  const OrtValue* value;
};
struct OrtCustomOpDomain {
  std::map<std::string, const OrtCustomOp*> operators;
};
struct OrtSessionOptions {
  OrtCustomOpDomain* domain = nullptr;
};
struct OrtKernelInfo {
  std::map<std::string, std::vector<int64_t>> integers;
  std::map<std::string, std::vector<float>> floats;
  std::vector<std::unique_ptr<OrtValue>> inputs;  // null: not there
  std::vector<bool> constant;
};
struct OrtKernelContext {
  const OrtCustomOp* op;
  const OrtKernelInfo* node;
  std::vector<std::unique_ptr<OrtValue>> outputs;
  std::vector<bool> wanted;
};

extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base);

namespace fuzz {
namespace {

using namespace qmdd;

constexpr int64_t kMostBytes = 1 << 22;  // of a tensor: more is what a machine has not

OrtStatus* status(const char* message) { return new OrtStatus{message}; }

// Bytes of a tensor of bytes or floats; -1: dimensions that ONNX Runtime itself refuses.
int64_t bytes_of(const std::vector<int64_t>& dims, int64_t each) {
  int64_t all = each;
  for (const int64_t dim : dims) {
    if (dim < 0) return -1;
    if (dim > 0 && all > kMostBytes / dim) return -1;
    all *= dim;
  }
  return all;
}

std::unique_ptr<OrtValue> tensor(std::vector<int64_t> dims, int64_t each) {
  const int64_t size = bytes_of(dims, each);
  if (size < 0) return nullptr;
  auto value = std::make_unique<OrtValue>();
  value->dims = std::move(dims);
  value->data = std::make_unique<uint8_t[]>(size_t(size));
  return value;
}

OrtStatus* create_status(int, const char* message) { return status(message); }
const char* message_of(const OrtStatus* s) { return s->message.c_str(); }
OrtStatus* create_domain(const char*, OrtCustomOpDomain** out) {
  *out = new OrtCustomOpDomain;
  return nullptr;
}
OrtStatus* add_operator(OrtCustomOpDomain* domain, const OrtCustomOp* op) {
  domain->operators[op->GetName(op)] = op;
  return nullptr;
}
OrtStatus* add_domain(OrtSessionOptions* options, OrtCustomOpDomain* domain) {
  options->domain = domain;
  return nullptr;
}
OrtStatus* data_of(OrtValue* value, void** out) {
  *out = value->data.get();
  return nullptr;
}
OrtStatus* rank_of(const OrtTensorTypeAndShapeInfo* info, size_t* out) {
  *out = info->value->dims.size();
  return nullptr;
}
OrtStatus* dims_of(const OrtTensorTypeAndShapeInfo* info, int64_t* out, size_t count) {
  std::copy_n(info->value->dims.begin(), std::min(count, info->value->dims.size()), out);
  return nullptr;
}
OrtStatus* shape_of(const OrtValue* value, OrtTensorTypeAndShapeInfo** out) {
  *out = new OrtTensorTypeAndShapeInfo{value};
  return nullptr;
}
OrtStatus* integer_of(const OrtKernelInfo* info, const char* name, int64_t* out) {
  const auto found = info->integers.find(name);
  if (found == info->integers.end() || found->second.size() != 1) return status("no such attribute");
  *out = found->second[0];
  return nullptr;
}
template <class T>
OrtStatus* list_of(const std::map<std::string, std::vector<T>>& held, const char* name, T* out,
                   size_t* count) {
  const auto found = held.find(name);
  if (found == held.end()) return status("no such attribute");
  const size_t room = *count;
  *count = found->second.size();
  if (room < *count) return status("not enough room");
  std::copy(found->second.begin(), found->second.end(), out);
  return nullptr;
}
OrtStatus* integers_of(const OrtKernelInfo* info, const char* name, int64_t* out, size_t* count) {
  return list_of(info->integers, name, out, count);
}
OrtStatus* floats_of(const OrtKernelInfo* info, const char* name, float* out, size_t* count) {
  return list_of(info->floats, name, out, count);
}
OrtStatus* input_of(const OrtKernelContext* context, size_t index, const OrtValue** out) {
  const auto& inputs = context->node->inputs;
  *out = index < inputs.size() ? inputs[index].get() : nullptr;
  return index < inputs.size() ? nullptr : status("no such input");
}
OrtStatus* output_of(OrtKernelContext* context, size_t index, const int64_t* dims, size_t count,
                     OrtValue** out) {
  *out = nullptr;
  if (index >= context->wanted.size() || !context->wanted[index]) return nullptr;
  const bool is_float = context->op->GetOutputType(context->op, index) == kOrtFloat;
  context->outputs[index] = tensor({dims, dims + count}, is_float ? 4 : 1);
  if (context->outputs[index] == nullptr) return status("no memory for this output");
  *out = context->outputs[index].get();
  return nullptr;
}
void release_status(OrtStatus* s) { delete s; }
void release_shape(OrtTensorTypeAndShapeInfo* s) { delete s; }
OrtStatus* constant_of(const OrtKernelInfo* info, size_t index, int* constant,
                       const OrtValue** out) {
  if (index >= info->inputs.size() || info->inputs[index] == nullptr) return status("not there");
  *constant = info->constant[index];
  *out = *constant ? info->inputs[index].get() : nullptr;
  return nullptr;
}
OrtStatus* in_order(const OrtKernelContext*, void (*body)(void*, size_t), size_t total, size_t,
                    void* user) {
  for (size_t i = 0; i < total; ++i) body(user, i);
  return nullptr;
}

struct Runtime {
  std::array<const void*, 275> functions{};
  OrtSessionOptions options;
  Runtime() {
    const auto set = [&](size_t place, auto* function) {
      functions[place] = reinterpret_cast<const void*>(function);
    };
    set(0, create_status);
    set(2, message_of);
    set(26, create_domain);
    set(27, add_operator);
    set(28, add_domain);
    set(51, data_of);
    set(61, rank_of);
    set(62, dims_of);
    set(65, shape_of);
    set(86, integer_of);
    set(90, input_of);
    set(91, output_of);
    set(93, release_status);
    set(99, release_shape);
    set(162, floats_of);
    set(163, integers_of);
    set(249, constant_of);
    set(274, in_order);
    static const OrtApiBase base = {
        [](uint32_t) { return reinterpret_cast<const OrtApi*>(runtime().functions.data()); },
        [] { return "0"; }};
    base_ = &base;
  }
  void load() {
    if (RegisterCustomOps(&options, base_) != nullptr) fail("cannot be registered", "operators");
  }
  static Runtime& runtime() {
    static Runtime once;
    return once;
  }
  const OrtApiBase* base_;
};

const OrtCustomOp* operator_named(const char* name) {
  Runtime& runtime = Runtime::runtime();
  if (runtime.options.domain == nullptr) runtime.load();
  return runtime.options.domain->operators.at(name);
}

void fill(Bytes& bytes, OrtValue& value, int64_t each) {
  const int64_t count = bytes_of(value.dims, 1);
  for (int64_t i = 0; i < count; ++i) {
    if (each == 1) {
      value.data[size_t(i)] = uint8_t(bytes.draw(0, 255));
    } else {
      const float drawn = checking::draw_float(bytes);
      std::memcpy(value.data.get() + 4 * i, &drawn, 4);
    }
  }
}

// A node under way: attributes, and inputs by their dimensions, filled last.
struct Node {
  OrtKernelInfo info;
  std::vector<std::vector<int64_t>> dims;
  std::vector<int64_t> each;
  std::vector<bool> there;
  size_t outputs = 1;

  void input(std::vector<int64_t> shape, int64_t bytes_each, bool constant, bool is_there = true) {
    dims.push_back(std::move(shape));
    each.push_back(bytes_each);
    info.constant.push_back(constant);
    there.push_back(is_there);
  }
};

int64_t wild(Bytes& bytes) {
  const int64_t odd[] = {0,       -1,        1,         2,          64,         255,
                         256,     65,        1 << 20,   INT32_MAX,  INT64_MAX,  INT64_MIN,
                         1 << 30, 1LL << 32, 1LL << 62, -(1 << 20), 4294967295, 3};
  const int64_t which = bytes.draw(0, 20);
  return which < 18 ? odd[which] : bytes.draw(INT64_MIN, INT64_MAX);
}

void lie(Bytes& bytes, Node& node) {
  const auto any = [&](auto& held) {
    return std::next(held.begin(), bytes.draw(0, int64_t(held.size()) - 1));
  };
  switch (bytes.draw(0, 7)) {
    case 0: case 1: case 2: {
      auto& values = any(node.info.integers)->second;
      if (!values.empty()) values[size_t(bytes.draw(0, int64_t(values.size()) - 1))] = wild(bytes);
      return;
    }
    case 3: any(node.info.integers)->second.resize(size_t(bytes.draw(0, 9))); return;
    case 4:
      if (!node.info.floats.empty()) any(node.info.floats)->second.resize(size_t(bytes.draw(0, 3)));
      return;
    case 5: node.there[size_t(bytes.draw(0, int64_t(node.there.size()) - 1))] = false; return;
    case 6: {
      auto& shape = *any(node.dims);
      if (!shape.empty())
        shape[size_t(bytes.draw(0, int64_t(shape.size()) - 1))] = bytes.draw(0, 80);
      return;
    }
    default: {
      auto& shape = *any(node.dims);
      shape.resize(size_t(bytes.draw(0, 6)), 1);
    }
  }
}

Node quant_conv(Bytes& bytes) {
  const int64_t in = bytes.draw(1, 9), out = bytes.draw(1, 40), bits = bytes.draw(1, 8);
  const int64_t kernel = bytes.draw(1, 3), n = bytes.draw(0, 2);
  const int64_t height = bytes.draw(kernel, 7), width = bytes.draw(kernel, 20);
  const int64_t top = bytes.draw(1, 255), halo = bytes.draw(0, 2);
  const bool table = bytes.draw(0, 3), chain = bytes.draw(0, 1);
  const int64_t addends = bytes.draw(0, 2);
  Node node;
  node.outputs = 2;
  node.info.integers = {
      {"in_channels", {in}}, {"out_channels", {out}}, {"groups", {1}}, {"kernel", {kernel, kernel}},
      {"stride", {1, 1}}, {"pads", {0, 0, 0, 0}}, {"in_halo", {0, 0, 0, 0}}, {"out_halo", {halo}},
      {"top_code", {top}}, {"pad_code", {0}}, {"out_pad_code", {0}}, {"bits", {bits}},
      {"first", {-(int64_t(1) << bits) / 2}}, {"step", {1}}, {"relu", {bytes.draw(0, 1)}},
      {"pool", {0, 0, 0}}, {"addends", {addends}}};
  node.info.floats = {{"factors", std::vector<float>(2, 0.5f)}};
  const int64_t each = out * kernel * kernel * in;
  node.input({n, height, width, in}, 1, false);
  node.input({(each * bits + 7) / 8}, 1, true);
  node.input({out}, 4, true);
  node.input({out}, 4, true);
  node.input({bytes.draw(0, 1) ? out : 1, bytes.draw(1, 20)}, 4, true, table);
  for (int i = 0; i < 3; ++i) node.input({out}, 4, true, chain);
  for (int64_t i = 0; i < addends; ++i) {
    node.input({n, height - kernel + 1, width - kernel + 1, out}, 4, false);
  }
  return node;
}

Node small(Bytes& bytes, int which) {
  Node node;
  const int64_t n = bytes.draw(0, 2), height = bytes.draw(1, 6), width = bytes.draw(1, 6);
  const int64_t channels = bytes.draw(1, 70);
  if (which == 0) {  // Threshold
    node.info.integers = {{"out_halo", {bytes.draw(0, 2)}}, {"out_pad_code", {bytes.draw(0, 3)}}};
    node.input({n, height, width, channels}, 4, false);
    node.input({bytes.draw(0, 1) ? channels : 1, bytes.draw(1, 255)}, 4, true);
  } else if (which == 1) {  // Cells
    const int64_t repeats = bytes.draw(0, 3);
    node.info.integers = {{"repeats", {repeats}},
                          {"channels", {12 + 3 * repeats + bytes.draw(0, 3)}},
                          {"halo", {0, 1, 0, 1}}};
    node.input({n, 3, 2 * height, 2 * width}, 1, false);
  } else {  // MeanPool
    node.info.integers = {{"window", {bytes.draw(1, 2), bytes.draw(1, 2)}}, {"round_up", {1}}};
    node.input({n, height, width, channels}, 4, false);
  }
  return node;
}

}  // namespace

void operators(Bytes& bytes) {
  const int64_t which = bytes.draw(0, 4);
  const char* const names[] = {"Threshold", "Cells", "MeanPool", "QuantConv", "QuantConv"};
  Node node = which < 3 ? small(bytes, int(which)) : quant_conv(bytes);
  for (int64_t lies = bytes.draw(0, 4); lies > 0; --lies) lie(bytes, node);
  for (size_t i = 0; i < node.dims.size(); ++i) {
    node.info.inputs.push_back(node.there[i] ? tensor(node.dims[i], node.each[i]) : nullptr);
    if (node.info.inputs.back() != nullptr) fill(bytes, *node.info.inputs.back(), node.each[i]);
  }
  // What is required ONNX Runtime itself asks for, and it knows the types.
  const OrtCustomOp* op = operator_named(names[which]);
  for (size_t i = 0; i < node.info.inputs.size(); ++i) {
    if (op->GetInputCharacteristic(op, i) == kOrtRequired && node.info.inputs[i] == nullptr) return;
  }
  OrtApi* const api = nullptr;
  void* kernel = nullptr;
  if (OrtStatus* refused = op->CreateKernelV2(op, api, &node.info, &kernel)) {
    delete refused;
    return;
  }
  OrtKernelContext context;
  context.op = op;
  context.node = &node.info;
  context.outputs.resize(node.outputs);
  for (size_t i = 0; i < node.outputs; ++i) {
    const bool required = op->GetOutputCharacteristic(op, i) == kOrtRequired;
    context.wanted.push_back(required || bytes.draw(0, 7) > 0);
  }
  for (int run = 0; run < 2; ++run) delete op->KernelComputeV2(kernel, &context);
  op->KernelDestroy(kernel);
}

}  // namespace fuzz
