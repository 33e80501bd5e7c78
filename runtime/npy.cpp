#include "convsmith/npy.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "convsmith/half.h"
#include "npy_header.h"
#include "text.h"

namespace convsmith {
namespace {

constexpr bool host_is_big_endian = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;

struct Float16 {
  std::uint16_t bits;
};

// The elements of a file, one after another, converted on the way.
struct Elements {
  const NpyHeader &header;
  std::string_view data;  // exactly the elements
  const std::string &name;

  template<class T>
  T load(std::int64_t i) const {
    char bytes[sizeof(T)];
    std::memcpy(bytes, data.data() + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
    if (header.big_endian != host_is_big_endian) std::reverse(bytes, bytes + sizeof(T));
    T value;
    std::memcpy(&value, bytes, sizeof(T));
    return value;
  }

  [[noreturn]] void refuse(std::int64_t i, const std::string &value, convsmith_type type) const {
    const auto byte = header.data_offset + static_cast<std::size_t>(i) * header.item_bytes;
    throw Error(name + ": byte " + std::to_string(byte) + ": expected a value in the range of " + type_name(type) +
                ", got " + value);
  }

  template<class From>
  void to_floats(float *to, std::int64_t count) const {
    for (std::int64_t i = 0; i < count; i++) {
      if constexpr (std::is_same_v<From, Float16>) {
        to[i] = from_float16(load<Float16>(i).bits);
      } else {
        const From value = load<From>(i);
        to[i] = static_cast<float>(value);
        if constexpr (std::is_same_v<From, double>) {
          if (std::isinf(to[i]) && !std::isinf(value)) refuse(i, number_text(value), CONVSMITH_F32);
        }
      }
    }
  }

  template<class From, class To>
  void to_integers(To *to, std::int64_t count, convsmith_type type) const {
    for (std::int64_t i = 0; i < count; i++) {
      const From value = load<From>(i);
      to[i] = static_cast<To>(value);
      // Equal after the round trip, and of the same sign: -1 as u8 comes back as 255, 2^32-1 as i32 as -1.
      if (static_cast<From>(to[i]) != value || (to[i] < 0) != (value < 0)) refuse(i, std::to_string(value), type);
    }
  }
};

// Calls run(From{}) with the type of the file's elements.
template<class Run>
void with_item_type(const NpyHeader &header, Run &&run) {
  const std::string key = header.kind + std::to_string(header.item_bytes);
  if (key == "f4") run(float{});
  else if (key == "f8") run(double{});
  else if (key == "f2") run(Float16{});
  else if (key == "i1") run(std::int8_t{});
  else if (key == "i2") run(std::int16_t{});
  else if (key == "i4") run(std::int32_t{});
  else if (key == "i8") run(std::int64_t{});
  else if (key == "u1" || key == "b1") run(std::uint8_t{});
  else if (key == "u2") run(std::uint16_t{});
  else if (key == "u4") run(std::uint32_t{});
  else run(std::uint64_t{});
}

void convert(const Elements &from, const Tensor &to) {
  const std::int64_t count = to.elements();
  const convsmith_type type = to.type();
  with_item_type(from.header, [&](auto sample) {
    using From = decltype(sample);
    if (type == CONVSMITH_F32) {
      from.to_floats<From>(to.data<float>(), count);
    } else if (type == CONVSMITH_F16 || type == CONVSMITH_BF16) {
      for (std::int64_t i = 0; i < count; i++) {
        long double value;
        if constexpr (std::is_same_v<From, Float16>) value = from_float16(from.load<Float16>(i).bits);
        else value = from.load<From>(i);
        const float wide = to_odd(value);
        const std::uint16_t bits = type == CONVSMITH_F16 ? to_float16(wide) : to_bfloat16(wide);
        const float back = type == CONVSMITH_F16 ? from_float16(bits) : from_bfloat16(bits);
        if (std::isinf(back) && !std::isinf(value)) from.refuse(i, number_text(static_cast<double>(value)), type);
        to.data<std::uint16_t>()[i] = bits;
      }
    } else if constexpr (std::is_integral_v<From>) {
      if (type == CONVSMITH_U8) from.to_integers<From>(to.data<std::uint8_t>(), count, type);
      else if (type == CONVSMITH_S8) from.to_integers<From>(to.data<std::int8_t>(), count, type);
      else from.to_integers<From>(to.data<std::int32_t>(), count, type);
    } else {
      throw Error(from.name + ": expected integers to read as " + type_name(type) + ", got floating-point elements");
    }
  });
}

const char *item_type(convsmith_type type) {
  switch (type) {
    case CONVSMITH_F32:
      return "<f4";
    case CONVSMITH_F16:
      return "<f2";
    case CONVSMITH_U8:
      return "|u1";
    case CONVSMITH_S8:
      return "|i1";
    case CONVSMITH_I32:
      return "<i4";
    case CONVSMITH_BF16:
      break;
  }
  throw Error(std::string("npy: expected f32, f16, u8, s8 or i32 to write, got ") + type_name(type));
}

}  // namespace

Tensor decode_npy(std::string_view bytes, const std::string &name, convsmith_type type) {
  const NpyHeader header = parse_npy_header(bytes, name);
  const Elements elements{header, bytes.substr(header.data_offset), name};
  Shape shape = header.shape;
  // Fortran order is row-major with the axes reversed.
  if (header.fortran_order) std::reverse(shape.begin(), shape.end());
  try {
    Tensor in_file_order(shape, type);
    convert(elements, in_file_order);
    if (!header.fortran_order || shape.size() < 2) return in_file_order;
    std::vector<int> reversed;
    for (int axis = in_file_order.rank(); axis-- > 0;) reversed.push_back(axis);
    Tensor result(header.shape, type);
    result.copy_from(in_file_order.permuted(reversed));
    return result;
  } catch (const Error &error) {
    const std::string message = error.what();
    throw Error(message.compare(0, name.size(), name) == 0 ? message : name + ": " + message);
  }
}

Tensor read_npy(const std::string &path, convsmith_type type) { return decode_npy(read_file(path), path, type); }

std::string encode_npy(const Tensor &tensor) {
  if (!tensor.defined()) throw Error("npy: expected a tensor to write, got an undefined one");
  std::string header = std::string("{'descr': '") + item_type(tensor.type()) + "', 'fortran_order': False, 'shape': (";
  for (std::int64_t extent : tensor.shape()) header += std::to_string(extent) + (tensor.rank() == 1 ? "," : ", ");
  if (tensor.rank() > 1) header.resize(header.size() - 2);
  header += "), }";
  // Magic, version and length take 10 bytes; the elements start at a multiple of 64.
  header.append(63 - (header.size() + 10) % 64, ' ');
  header += '\n';
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 0xff);
  bytes += static_cast<char>(header.size() >> 8);
  bytes += header;

  const std::size_t size = size_of(tensor.type());
  const std::size_t start = bytes.size();
  bytes.resize(start + static_cast<std::size_t>(tensor.elements()) * size);
  if (tensor.elements() == 0) return bytes;
  const Tensor dense(tensor.shape(), tensor.type());
  dense.copy_from(tensor);
  std::memcpy(&bytes[start], dense.data<char>(), bytes.size() - start);
  if (host_is_big_endian) {
    for (std::size_t i = start; i < bytes.size(); i += size) std::reverse(&bytes[i], &bytes[i] + size);
  }
  return bytes;
}

void write_npy(const std::string &path, const Tensor &tensor) { write_file(path, encode_npy(tensor)); }

}  // namespace convsmith
