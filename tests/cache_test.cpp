#include "tools/support/cache.h"
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>
#include <chrono>
#include <cstdlib>
#include <thread>
#include "convsmith/error.h"
#include "convsmith/file.h"

namespace convsmith {
namespace {

namespace fs = std::filesystem;
constexpr std::uint64_t plenty = std::uint64_t{1} << 30;

class CacheTest : public testing::Test {
 protected:
  CacheTest() {
    std::string name = (fs::temp_directory_path() / "cache_test-XXXXXX").string();
    base_ = mkdtemp(name.data());
    folder_ = base_ / "cache";
  }
  ~CacheTest() override { fs::remove_all(base_); }

  // Makes a file `data` of so many bytes, and counts.
  auto maker(std::size_t bytes, char fill = 'x') {
    return [=, this](const fs::path &folder) {
      made_++;
      write_file((folder / "data").string(), std::string(bytes, fill));
    };
  }

  std::vector<std::string> keys(const Cache &cache) const {
    std::vector<std::string> result;
    for (const CacheEntry &entry : cache.entries()) result.push_back(entry.key_text);
    return result;
  }

  void set_age(const fs::path &path, std::chrono::minutes age) const {
    fs::last_write_time(path, fs::file_time_type::clock::now() - age);
  }

  std::vector<std::string> leftovers() const {
    std::vector<std::string> names;
    for (const auto &entry : fs::directory_iterator(folder_))
      if (entry.path().filename().string().starts_with(".making-")) names.push_back(entry.path().filename());
    return names;
  }

  fs::path base_, folder_;
  int made_ = 0;
};

TEST_F(CacheTest, MakesOnceAndFindsAgain) {
  Cache cache(folder_, plenty);
  EXPECT_TRUE(cache.entries().empty());
  EXPECT_FALSE(fs::exists(folder_));
  const fs::path first = cache.get("a key\nof two lines", maker(10));
  EXPECT_EQ(cache.get("a key\nof two lines", maker(10)), first);
  EXPECT_EQ(Cache(folder_, plenty).get("a key\nof two lines", maker(10)), first);
  EXPECT_EQ(made_, 1);
  EXPECT_EQ(read_file(first / "data"), std::string(10, 'x'));
  EXPECT_EQ(read_file(first / "key.txt"), "a key\nof two lines");
  EXPECT_NE(cache.get("another key", maker(10)), first);
  EXPECT_EQ(made_, 2);
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(CacheTest, NamesAre128BitsAndDiffer) {
  Cache cache(folder_, plenty);
  std::vector<std::string> names;
  for (const char *key : {"", "a", "b", "ab", "ba"}) names.push_back(cache.get(key, maker(1)).filename());
  for (const std::string &name : names) EXPECT_EQ(name.size(), 32u);
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::unique(names.begin(), names.end()), names.end());
}

TEST_F(CacheTest, AFailedMakeLeavesNothing) {
  Cache cache(folder_, plenty);
  EXPECT_THROW(cache.get("key",
                         [](const fs::path &folder) {
                           write_file((folder / "half").string(), "half");
                           throw Error("no");
                         }),
               Error);
  EXPECT_TRUE(cache.entries().empty());
  EXPECT_TRUE(leftovers().empty());
  cache.get("key", maker(5));
  EXPECT_EQ(made_, 1);
}

TEST_F(CacheTest, AnotherKeyUnderTheSameNameIsAMiss) {
  Cache cache(folder_, plenty);
  const fs::path entry = cache.get("key", maker(5));
  write_file((entry / "key.txt").string(), "yek");
  EXPECT_EQ(cache.get("key", maker(5)), entry);
  EXPECT_EQ(made_, 2);
  EXPECT_EQ(read_file(entry / "key.txt"), "key");
}

TEST_F(CacheTest, ADamagedEntryIsMadeAgain) {
  Cache cache(folder_, plenty);
  const fs::path entry = cache.get("key", maker(5));
  const auto expect_made_again = [&](const std::string &damage) {
    const int before = made_;
    EXPECT_EQ(cache.get("key", maker(5)), entry) << damage;
    EXPECT_EQ(made_, before + 1) << damage;
    EXPECT_EQ(read_file(entry / "data"), "xxxxx") << damage;
  };
  fs::remove(entry / "data");
  expect_made_again("a file removed");
  fs::resize_file(entry / "data", 0);
  expect_made_again("a file cut short");
  fs::remove(entry / "key.txt");
  expect_made_again("the key removed");
  fs::remove(entry / "hash.txt");
  expect_made_again("the hash removed");
  write_file(entry / "data", "xxyxx");
  expect_made_again("a byte changed");
  fs::remove_all(entry);
  write_file(entry.string(), "a file");
  expect_made_again("a file in the place of the folder");
  fs::remove_all(entry);
  fs::create_directory(entry);
  expect_made_again("an empty folder");
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(CacheTest, RemovesTheLeastRecentlyUsed) {
  Cache cache(folder_, 3500);
  for (const char *key : {"a", "b", "c"}) set_age(cache.get(key, maker(1000)), std::chrono::minutes('z' - key[0]));
  EXPECT_EQ(keys(cache), (std::vector<std::string>{"c", "b", "a"}));
  cache.get("a", maker(1000));
  EXPECT_EQ(keys(cache), (std::vector<std::string>{"a", "c", "b"}));
  cache.get("d", maker(1000));
  EXPECT_EQ(keys(cache), (std::vector<std::string>{"d", "a", "c"}));
  EXPECT_LE(cache.size(), 3500u);
  EXPECT_EQ(made_, 4);
}

TEST_F(CacheTest, NeverRemovesTheOneJustUsed) {
  Cache cache(folder_, 10);
  cache.get("a", maker(1000));
  const fs::path last = cache.get("b", maker(5000));
  EXPECT_EQ(keys(cache), std::vector<std::string>{"b"});
  EXPECT_EQ(fs::file_size(last / "data"), 5000u);
}

TEST_F(CacheTest, SizeCountsEveryByteBelow) {
  Cache cache(folder_, plenty);
  cache.get("key", [](const fs::path &folder) {
    fs::create_directory(folder / "sub");
    write_file((folder / "sub" / "data").string(), std::string(700, 'x'));
    fs::create_symlink("/usr", folder / "link");
  });
  EXPECT_EQ(cache.size(), 700u + 3u + 17u);  // what was made, the key, the hash
  cache.get("key", maker(1));
  EXPECT_EQ(made_, 0);
}

TEST_F(CacheTest, ClearRemovesOnlyItsOwn) {
  Cache cache(folder_, plenty);
  cache.get("a", maker(10));
  cache.get("b", maker(10));
  write_file((folder_ / "note.txt").string(), "mine");
  fs::create_directory(folder_ / std::string(32, 'a'));
  fs::create_directory(folder_ / ".making-left");
  cache.clear();
  EXPECT_TRUE(cache.entries().empty());
  EXPECT_EQ(cache.size(), 0u);
  EXPECT_TRUE(leftovers().empty());
  EXPECT_TRUE(fs::exists(folder_ / "note.txt"));
  EXPECT_TRUE(fs::exists(folder_ / std::string(32, 'a')));
  Cache(base_ / "none", plenty).clear();
  EXPECT_FALSE(fs::exists(base_ / "none"));
}

TEST_F(CacheTest, EightProcessesShareOneKey) {
  std::vector<pid_t> children;
  for (int i = 0; i < 8; i++) {
    const pid_t child = fork();
    if (child == 0) {
      int code = 0;
      try {
        for (int round = 0; round < 5; round++) {
          Cache cache(folder_, plenty);
          const fs::path entry = cache.get(fmt::format("round {}", round), [&](const fs::path &folder) {
            for (int part = 0; part < 5; part++) {
              write_file((folder / fmt::format("part{}", part)).string(),
                         std::string(10000, static_cast<char>('0' + part)));
              std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
          });
          for (int part = 0; part < 5; part++)
            if (read_file(entry / fmt::format("part{}", part)) != std::string(10000, static_cast<char>('0' + part)))
              code = 1;
        }
      } catch (const std::exception &error) {
        fmt::print(stderr, "{}\n", error.what());
        code = 2;
      }
      _exit(code);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(Cache(folder_, plenty).entries().size(), 5u);
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(CacheTest, ThreadsThatMakeAndEvictNeverFail) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; t++)
    threads.emplace_back([this, t] {
      Cache cache(folder_, 5000);
      for (int i = 0; i < 30; i++)
        EXPECT_NO_THROW(cache.get(fmt::format("key {}", (t * 7 + i) % 12), [](const fs::path &folder) {
          write_file((folder / "data").string(), std::string(1000, 'x'));
        }));
    });
  for (std::thread &thread : threads) thread.join();
  Cache cache(folder_, 5000);
  cache.get("last", maker(1000));
  EXPECT_LE(cache.size(), 5000u);
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(CacheTest, RemovesWhatADeadProcessLeft) {
  const pid_t child = fork();
  if (child == 0) {
    Cache(folder_, plenty).get("dead", [](const fs::path &folder) {
      write_file((folder / "half").string(), "half");
      _exit(0);
    });
    _exit(1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  ASSERT_EQ(status, 0);
  ASSERT_EQ(leftovers().size(), 1u);
  Cache cache(folder_, plenty);
  EXPECT_TRUE(cache.entries().empty());
  cache.get("key", maker(5));
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(CacheTest, KeepsWhatALivingProcessMakesUnlessOlderThanAnHour) {
  Cache cache(folder_, plenty);
  cache.get("key", maker(5));
  const int lock = open((folder_ / "lock").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(flock(lock, LOCK_SH), 0);
  fs::create_directory(folder_ / ".making-young");
  fs::create_directory(folder_ / ".making-old");
  set_age(folder_ / ".making-young", std::chrono::minutes(59));
  set_age(folder_ / ".making-old", std::chrono::minutes(61));
  cache.get("another", maker(5));
  EXPECT_EQ(leftovers(), std::vector<std::string>{".making-young"});
  close(lock);
  cache.get("a third", maker(5));
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(CacheTest, AFolderThatCannotBeWrittenIsAnErrorWithTheRemedy) {
  write_file(folder_.string(), "a file in its place");
  for (const fs::path &folder : {folder_, folder_ / "below", fs::path("/proc/convsmith")}) {
    Cache cache(folder, plenty);
    try {
      cache.get("key", maker(5));
      FAIL() << folder;
    } catch (const Error &error) {
      const std::string message = error.what();
      EXPECT_TRUE(message.starts_with(folder.string() + ": cannot write the cache folder: ")) << message;
      EXPECT_TRUE(message.ends_with("; make it writable, or set CONVSMITH_CACHE to another folder")) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos);
    }
    EXPECT_TRUE(cache.entries().empty());
  }
  EXPECT_EQ(made_, 0);
}

class Environment {
 public:
  Environment(const char *name, const char *value) : name_(name) {
    if (const char *old = std::getenv(name)) old_ = old;
    if (value == nullptr) unsetenv(name);
    else setenv(name, value, 1);
  }
  ~Environment() {
    if (old_.empty()) unsetenv(name_);
    else setenv(name_, old_.c_str(), 1);
  }

 private:
  const char *name_;
  std::string old_;
};

TEST_F(CacheTest, TheUsersFolderFollowsTheEnvironment) {
  const Environment home("HOME", "/h"), limit("CONVSMITH_CACHE_LIMIT", nullptr);
  const Environment folder("CONVSMITH_CACHE", nullptr), xdg("XDG_CACHE_HOME", nullptr);
  EXPECT_EQ(Cache::of_user().folder(), "/h/.cache/convsmith");
  EXPECT_EQ(Cache::of_user().limit(), plenty);
  const Environment relative("XDG_CACHE_HOME", "x");
  EXPECT_EQ(Cache::of_user().folder(), "/h/.cache/convsmith");
  const Environment absolute("XDG_CACHE_HOME", "/x");
  EXPECT_EQ(Cache::of_user().folder(), "/x/convsmith");
  const Environment outright("CONVSMITH_CACHE", "/c"), small("CONVSMITH_CACHE_LIMIT", "5M");
  EXPECT_EQ(Cache::of_user().folder(), "/c");
  EXPECT_EQ(Cache::of_user().limit(), 5u << 20);
  const Environment wrong("CONVSMITH_CACHE_LIMIT", "much");
  EXPECT_THROW(Cache::of_user(), Error);
}

TEST_F(CacheTest, WithoutAnyFolderTheErrorSaysWhatToSet) {
  const Environment home("HOME", nullptr), folder("CONVSMITH_CACHE", nullptr), xdg("XDG_CACHE_HOME", nullptr);
  EXPECT_THROW(Cache::of_user(), Error);
}

TEST(ParseBytes, ReadsSuffixesAndRefusesTheRest) {
  EXPECT_EQ(parse_bytes("limit", "0"), 0u);
  EXPECT_EQ(parse_bytes("limit", "1048576"), 1048576u);
  EXPECT_EQ(parse_bytes("limit", "512K"), 524288u);
  EXPECT_EQ(parse_bytes("limit", "3G"), std::uint64_t{3} << 30);
  EXPECT_EQ(parse_bytes("limit", "18446744073709551615"), ~std::uint64_t{0});
  for (const char *text :
       {"", "K", "-1", "1.5G", "1T", "1 G", "1GG", "18446744073709551616", "18446744073709551615K", "17179869184G"})
    EXPECT_THROW(parse_bytes("limit", text), Error) << text;
  try {
    parse_bytes("limit", "lots");
    FAIL();
  } catch (const Error &error) {
    EXPECT_STREQ(error.what(), "limit: expected a number of bytes, or a number with K, M or G, got 'lots'");
  }
}

}  // namespace
}  // namespace convsmith
