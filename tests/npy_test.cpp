// .npy files: what is read, what is written, and what every kind of damage does. Whole-file writing.
#include "convsmith/npy.h"
#include <gtest/gtest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <vector>
#include "convsmith/error.h"
#include "convsmith/file.h"

namespace convsmith {
namespace {

// A file of format `major`.0 with this dictionary and these bytes of elements.
std::string npy(const std::string &dictionary, const std::string &data, int major = 1) {
  const std::string header = dictionary + "\n";
  std::string file = "\x93NUMPY";
  file += static_cast<char>(major);
  file += '\0';
  for (int i = 0; i < (major == 1 ? 2 : 4); i++) file += static_cast<char>(header.size() >> 8 * i & 0xff);
  return file + header + data;
}

std::string dictionary(const std::string &descr, const std::string &shape, bool fortran = false) {
  return "{'descr': '" + descr + "', 'fortran_order': " + (fortran ? "True" : "False") + ", 'shape': " + shape + ", }";
}

// Elements of type T as bytes, little-endian or big-endian.
template<class T>
std::string bytes(const std::vector<T> &values, bool big_endian = false) {
  std::string result;
  for (T value : values) {
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    if (big_endian) std::reverse(raw, raw + sizeof(T));
    result.append(raw, sizeof(T));
  }
  return result;
}

std::vector<float> values(const Tensor &tensor) {
  return {tensor.data<float>(), tensor.data<float>() + tensor.elements()};
}

std::string decode_message(const std::string &file) {
  try {
    (void)decode_npy(file, "x.npy");
  } catch (const Error &error) {
    return error.what();
  }
  return "read";
}

class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "convsmith-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string &name) const { return path_ + "/" + name; }
  std::vector<std::string> files() const {
    std::vector<std::string> result;
    for (const auto &entry : std::filesystem::directory_iterator(path_)) result.push_back(entry.path().filename());
    return result;
  }

 private:
  std::string path_;
};

TEST(Npy, ReadsEveryVersionAndByteOrder) {
  const std::vector<float> wanted{1, -2.5f, 3, 4, 5, 6};
  for (int major : {1, 2, 3}) {
    for (bool big : {false, true}) {
      const std::string file = npy(dictionary(big ? ">f4" : "<f4", "(2, 3)"), bytes(wanted, big), major);
      const Tensor t = decode_npy(file, "x.npy");
      EXPECT_EQ(t.shape(), (Shape{2, 3}));
      EXPECT_EQ(values(t), wanted);
    }
  }
}

// Through a float, rounded to nearest twice, these would go the other way.
TEST(Npy, RoundsToSixteenBitsOnce) {
  const double just_above = 1 + 0x1p-11 + 0x1p-40, just_below = 1 + 0x1p-11 - 0x1p-40;
  const Tensor t = decode_npy(npy(dictionary("<f8", "(5,)"), bytes<double>({just_above, just_below, -just_above, 65519.9999, 1e-300})), "x.npy", CONVSMITH_F16);
  EXPECT_EQ(std::vector<std::uint16_t>(t.data<std::uint16_t>(), t.data<std::uint16_t>() + 5), (std::vector<std::uint16_t>{0x3c01, 0x3c00, 0xbc01, 0x7bff, 0}));
  const std::vector<std::int32_t> large = {16842753, 16842752, -16842753};
  const Tensor stored = decode_npy(npy(dictionary("<i4", "(3,)"), bytes(large)), "x.npy", CONVSMITH_BF16), i32({3}, CONVSMITH_I32);
  std::copy(large.begin(), large.end(), i32.data<std::int32_t>());
  for (const Tensor &b : {stored, i32.as(CONVSMITH_BF16)})
    EXPECT_EQ(std::vector<std::uint16_t>(b.data<std::uint16_t>(), b.data<std::uint16_t>() + 3), (std::vector<std::uint16_t>{0x4b81, 0x4b80, 0xcb81}));
  try {
    decode_npy(npy(dictionary("<f8", "(1,)"), bytes<double>({65520.5})), "x.npy", CONVSMITH_F16);
    FAIL();
  } catch (const Error &error) { EXPECT_NE(std::string(error.what()).find("got 65520.5"), std::string::npos) << error.what(); }
}

TEST(Npy, ReadsFortranOrder) {
  const Tensor t = decode_npy(npy(dictionary("<f4", "(2, 3)", true), bytes<float>({0, 3, 1, 4, 2, 5})), "x.npy");
  EXPECT_EQ(t.shape(), (Shape{2, 3}));
  EXPECT_EQ(t.strides(), (Shape{3, 1}));
  EXPECT_EQ(values(t), (std::vector<float>{0, 1, 2, 3, 4, 5}));
}

template<class T>
void expect_reads(const std::string &descr, const std::vector<T> &stored, const std::vector<float> &wanted) {
  for (bool big : {false, true}) {
    const std::string prefix = sizeof(T) == 1 ? "|" : big ? ">" : "<";
    const std::string shape = "(" + std::to_string(stored.size()) + ",)";
    EXPECT_EQ(values(decode_npy(npy(dictionary(prefix + descr, shape), bytes(stored, big)), "x.npy")), wanted) << descr;
  }
}

TEST(Npy, ConvertsEveryElementType) {
  expect_reads<double>("f8", {0.5, -1e-3}, {0.5f, -1e-3f});
  expect_reads<std::uint16_t>("f2", {0x3c00, 0xc000, 0x0001}, {1, -2, 0x1p-24f});
  expect_reads<std::int8_t>("i1", {-128, 127}, {-128, 127});
  expect_reads<std::int16_t>("i2", {-32768, 5}, {-32768, 5});
  expect_reads<std::int32_t>("i4", {-7, 16777216}, {-7, 16777216});
  expect_reads<std::int64_t>("i8", {-7, std::int64_t{1} << 40}, {-7, 0x1p40f});
  expect_reads<std::uint8_t>("u1", {0, 255}, {0, 255});
  expect_reads<std::uint16_t>("u2", {65535}, {65535});
  expect_reads<std::uint32_t>("u4", {4294967295u}, {0x1p32f});
  expect_reads<std::uint64_t>("u8", {std::uint64_t{1} << 63}, {0x1p63f});
  expect_reads<std::uint8_t>("b1", {0, 1}, {0, 1});
}

TEST(Npy, ReadsIntegersAsIntegersInRange) {
  const std::string file = npy(dictionary("<i8", "(3,)"), bytes<std::int64_t>({0, 127, 200}));
  const Tensor t = decode_npy(file, "x.npy", CONVSMITH_U8);
  EXPECT_EQ(t.data<std::uint8_t>()[2], 200);
  EXPECT_EQ(decode_npy(file, "x.npy", CONVSMITH_I32).data<std::int32_t>()[2], 200);
  EXPECT_THROW(decode_npy(file, "x.npy", CONVSMITH_S8), Error);
  const std::string negative = npy(dictionary("<i4", "(1,)"), bytes<std::int32_t>({-1}));
  EXPECT_THROW(decode_npy(negative, "x.npy", CONVSMITH_U8), Error);
  EXPECT_EQ(decode_npy(negative, "x.npy", CONVSMITH_S8).data<std::int8_t>()[0], -1);
  const std::string large = npy(dictionary("<u8", "(1,)"), bytes<std::uint64_t>({~std::uint64_t{0}}));
  EXPECT_THROW(decode_npy(large, "x.npy", CONVSMITH_I32), Error);
  EXPECT_THROW(decode_npy(npy(dictionary("<f4", "(1,)"), bytes<float>({1})), "x.npy", CONVSMITH_U8), Error);
}

TEST(Npy, RefusesADoubleBeyondFloat) {
  const std::string file = npy(dictionary("<f8", "(2,)"), bytes<double>({1, 1e300}));
  EXPECT_NE(decode_message(file).find("expected a value in the range of f32, got 1e+300"), std::string::npos);
  const Tensor infinite = decode_npy(npy(dictionary("<f8", "(1,)"), bytes<double>({INFINITY})), "x.npy");
  EXPECT_TRUE(std::isinf(infinite.at({0})));
}

TEST(Npy, ReadsScalarsEmptyTensorsAndOtherSpellings) {
  EXPECT_EQ(decode_npy(npy(dictionary("<f4", "()"), bytes<float>({7})), "x.npy").at({}), 7);
  EXPECT_EQ(decode_npy(npy(dictionary("<f4", "(0, 4)"), ""), "x.npy").shape(), (Shape{0, 4}));
  const std::string loose = "{\"shape\":(1,2,),'fortran_order':False,'descr':\"<f4\"}   ";
  EXPECT_EQ(decode_npy(npy(loose, bytes<float>({1, 2})), "x.npy").shape(), (Shape{1, 2}));
  EXPECT_EQ(decode_npy(npy(dictionary("<f4", "(1, 1, 1, 1, 1, 1, 1, 1, 1)"), bytes<float>({7})), "x.npy").rank(), 9);
}

TEST(Npy, NamesWhatIsWrongAndWhere) {
  const std::string one = bytes<float>({1});
  const std::pair<std::string, std::string> cases[] = {
      {"", "x.npy: byte 0: expected the bytes \\x93NUMPY, got the end of the file"},
      {"PK\x03\x04zip", "x.npy: byte 0: expected the bytes \\x93NUMPY, got 'PK\\x03\\x04zi'"},
      {npy(dictionary("<f4", "(1,)"), one, 4),
       "x.npy: byte 6: expected format version 1.0, 2.0 or 3.0, got '\\x04\\x00'"},
      {npy(dictionary("<c8", "(1,)"), one),
       "x.npy: byte 20: expected an element type of f2, f4, f8, i1 to i8, u1 to u8 or b1 after '<', '>' or '|', got "
       "''<c8''"},
      {npy(dictionary("<f4", "(1)"), one), "x.npy: byte 62: expected ',' after a lone extent, got ')'"},
      {npy(dictionary("<f4", "(-1,)"), one), "x.npy: byte 61: expected an extent or ')', got '-'"},
      {npy(dictionary("<f4", "(2,)"), one), "x.npy: byte 68: expected 8 bytes of elements for a shape of 2, got 4"},
      {npy(dictionary("<f4", "(1,)"), one + "x"),
       "x.npy: byte 68: expected 4 bytes of elements for a shape of 1, got 5"},
      {npy(dictionary("<f4", "(1, 1, 1, 1, 1, 1, 1, 1, 1, 1)"), one),
       "x.npy: byte 88: expected at most 9 axes, got more"},
      {npy("{'descr': '<f4', 'shape': (1,)}", one),
       "x.npy: byte 41: expected a header with the key fortran_order, got none"},
      {npy("{'descr': '<f4', 'descr': '<f4'}", one),
       "x.npy: byte 27: expected each of descr, fortran_order and shape once, got ''descr''"},
      {npy(dictionary("<f4", "(1,)") + "x", one), "x.npy: byte 67: expected only spaces after the dictionary, got 'x'"},
  };
  for (const auto &[file, message] : cases) EXPECT_EQ(decode_message(file), message);
}

TEST(Npy, ChecksSizesBeforeItAllocates) {
  const std::string one = bytes<float>({1});
  for (const char *shape :
       {"(4611686018427387904,)", "(4294967296, 4294967296)", "(9223372036854775807, 2)", "(99999999999999999999,)",
        "(2147483647, 2147483647)", "(100000000000,)", "(9223372036854775807, 9223372036854775807, 0)"}) {
    EXPECT_NE(decode_message(npy(dictionary("<f4", shape), one)), "read") << shape;
    EXPECT_NE(decode_message(npy(dictionary("<f4", shape), "")), "read") << shape;
  }
}

// Reads, or throws a one-line Error; anything else fails the test or the sanitizer.
void expect_read_or_refused(const std::string &file, const std::string &what) {
  const std::string message = decode_message(file);
  if (message == "read") return;
  EXPECT_EQ(message.compare(0, 7, "x.npy: "), 0) << what << ": " << message;
  const bool one_line = std::all_of(message.begin(), message.end(), [](char c) { return c >= ' ' && c <= '~'; });
  EXPECT_TRUE(one_line) << what << ": " << message;
}

TEST(Npy, SurvivesEveryTruncation) {
  const std::string file = npy(dictionary("<f4", "(2, 3)"), bytes<float>({1, 2, 3, 4, 5, 6}));
  for (std::size_t length = 0; length < file.size(); length++) {
    EXPECT_NE(decode_message(file.substr(0, length)), "read") << length;
    expect_read_or_refused(file.substr(0, length), "length " + std::to_string(length));
  }
  EXPECT_EQ(decode_message(file), "read");
}

TEST(Npy, SurvivesRandomDamage) {
  for (unsigned seed = 0; seed < 2000; seed++) {
    std::mt19937 random(seed);
    std::string file =
        npy(dictionary(seed % 2 ? "<f8" : ">i2", "(2, 3)", seed % 3 == 0), std::string(48, 'a'), 1 + seed % 3);
    for (unsigned flips = 1 + seed % 4; flips > 0; flips--) {
      const std::size_t limit = seed % 5 ? std::min<std::size_t>(file.size(), 80) : file.size();
      file[random() % limit] = static_cast<char>(random());
    }
    expect_read_or_refused(file, "seed " + std::to_string(seed));
  }
}

TEST(Npy, WritesTheBytesThatNumpyWrites) {
  const Tensor t({2, 3});
  for (int i = 0; i < 6; i++) t.data<float>()[i] = static_cast<float>(i);
  const std::string file = encode_npy(t);
  std::string header = dictionary("<f4", "(2, 3)");
  header.resize(117, ' ');
  EXPECT_EQ(file, npy(header, bytes<float>({0, 1, 2, 3, 4, 5})));
  EXPECT_NE(encode_npy(Tensor({5}, CONVSMITH_U8)).find("'|u1', 'fortran_order': False, 'shape': (5,), }"),
            std::string::npos);
  EXPECT_NE(encode_npy(Tensor(Shape{}, CONVSMITH_I32)).find("'<i4', 'fortran_order': False, 'shape': (), }"),
            std::string::npos);
  for (std::int64_t width : {1, 12, 123, 1234, 12345}) {
    EXPECT_EQ(encode_npy(Tensor({width}, CONVSMITH_S8)).size() % 64, width % 64);
  }
  EXPECT_THROW(encode_npy(Tensor({5}, CONVSMITH_BF16)), Error);
  EXPECT_THROW(encode_npy(Tensor()), Error);
}

TEST(Npy, WritesLogicalOrderWhateverTheMemoryOrder) {
  const Folder folder;
  const Tensor t({2, 3});
  for (int i = 0; i < 6; i++) t.data<float>()[i] = static_cast<float>(i);
  write_npy(folder / "t.npy", t.permuted({1, 0}));
  const Tensor back = read_npy(folder / "t.npy");
  EXPECT_EQ(back.shape(), (Shape{3, 2}));
  EXPECT_EQ(values(back), (std::vector<float>{0, 3, 1, 4, 2, 5}));
}

TEST(File, ReplacesAndLeavesNothingBehind) {
  const Folder folder;
  write_file(folder / "a", "first");
  std::filesystem::permissions(folder / "a", std::filesystem::perms(0640));
  std::filesystem::create_symlink("a", folder / "link");
  write_file(folder / "link", std::string("sec\0nd", 6));
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
  EXPECT_EQ(read_file(folder / "a"), std::string("sec\0nd", 6));
  EXPECT_EQ(std::filesystem::status(folder / "a").permissions(), std::filesystem::perms(0640));
  EXPECT_EQ(folder.files().size(), 2u);
  write_file(folder / "empty", "");
  EXPECT_EQ(read_file(folder / "empty"), "");
}

TEST(File, FollowsALinkToWhereThereIsNothingYet) {
  const Folder folder;
  std::filesystem::create_directory(folder / "inner");
  std::filesystem::create_symlink("inner/second", folder / "first");
  std::filesystem::create_symlink("target", folder / "inner/second");
  write_file(folder / "first", "bytes");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "first") && std::filesystem::is_symlink(folder / "inner/second"));
  EXPECT_EQ(read_file(folder / "inner/target"), "bytes");
  std::filesystem::create_symlink("round", folder / "round");
  EXPECT_THROW(write_file(folder / "round", "bytes"), Error);
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "round"));
}

// /dev/stdout may be a file that others write too.
TEST(File, WritesAnOpenFileWhereItStands) {
  const Folder folder;
  const int fd = ::open((folder / "log").c_str(), O_RDWR | O_CREAT | O_APPEND, 0600);
  ASSERT_EQ(::write(fd, "before ", 7), 7);
  const std::string open_file = "/dev/fd/" + std::to_string(fd);
  std::filesystem::create_symlink(open_file, folder / "link");
  write_file(open_file, "one ");
  write_file(folder / "link", "two ");
  ASSERT_EQ(::write(fd, "after", 5), 5);
  EXPECT_EQ(read_file(folder / "log"), "before one two after");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
  std::filesystem::remove(folder / "log");
  write_file(open_file, "more");
  EXPECT_EQ(::lseek(fd, 0, SEEK_END), 24);
  EXPECT_EQ(folder.files(), (std::vector<std::string>{"link"}));
  ::close(fd);
  EXPECT_THROW(write_file(open_file, "closed"), Error);
}

std::string write_error(const std::string &path, const std::string &bytes = "x") {
  try {
    write_file(path, bytes);
  } catch (const Error &error) {
    return error.what();
  }
  return "written";
}

TEST(File, NamesThePathAndTheReason) {
  const Folder folder;
  EXPECT_EQ(write_error(folder / "none/x"), folder / "none/x: cannot write: No such file or directory");
  EXPECT_EQ(write_error(folder / ""), folder / ": cannot write: Is a directory");
  EXPECT_EQ(write_error("/dev/full"), "/dev/full: cannot write: No space left on device");
  EXPECT_NE(write_error("/proc/convsmith.npy"), "written");
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
  EXPECT_EQ(write_error("/dev/null"), "written");
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
  EXPECT_THROW(read_file(folder / "none"), Error);
  EXPECT_THROW(read_file(folder / ""), Error);
  EXPECT_FALSE(read_file("/proc/self/status").empty());  // of no size
}

TEST(File, KeepsTheOldFileWhenWritingFails) {
  const Folder folder;
  write_file(folder / "a", "old");
  const pid_t child = ::fork();
  if (child == 0) {  // only the child's files are limited
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    ::_exit(write_error(folder / "a", std::string(100000, 'x')) == folder / "a: cannot write: File too large" ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(read_file(folder / "a"), "old");
  EXPECT_EQ(folder.files(), std::vector<std::string>{"a"});
}

}  // namespace
}  // namespace convsmith
