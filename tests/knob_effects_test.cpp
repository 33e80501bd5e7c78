#include "tools/commands/knob_effects.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace convsmith {
namespace {

using testing::ElementsAre;
using testing::Pair;
using Json = nlohmann::json;

Json trial(const std::string &setting, int rung, double ratio) {
  return {{"setting", setting}, {"rung", rung}, {"ratio", ratio}, {"us", 100 / ratio}, {"noise", 0.01}};
}

Json fault(const std::string &setting, int rung = 0) {
  return {{"setting", setting}, {"rung", rung}, {"fault", "died of signal 11"}};
}

TEST(KnobEffects, TheScheduleIsAKnobToo) {
  EXPECT_THAT(knob_values("cpu_direct@1 tile=32,14 pad=1  odd"),
              ElementsAre(Pair("schedule", "cpu_direct@1"), Pair("tile", "32,14"), Pair("pad", "1"), Pair("odd", "")));
  EXPECT_TRUE(knob_values("").empty());
}

TEST(KnobEffects, TheClosestLookAtASettingCounts) {
  const auto tried = tried_settings({trial("s@1 a=1", 0, 1.3), trial("s@1 a=1", 2, 1.1), trial("s@1 a=1", 1, 1.2),
                                     trial("s@1 a=2", 0, 1.4), trial("s@1 a=3", 2, 1.2)});
  ASSERT_EQ(tried.size(), 3u);
  EXPECT_EQ(tried[0].setting, "s@1 a=3");
  EXPECT_EQ(tried[1].setting, "s@1 a=1");
  EXPECT_EQ(tried[1].ratio, 1.1);
  EXPECT_EQ(tried[1].rung, 2);
  EXPECT_EQ(tried[2].setting, "s@1 a=2");
}

TEST(KnobEffects, AFaultOutweighsWhatWasMeasured) {
  for (const Json &seen :
       {Json{trial("s@1 a=1", 2, 2), fault("s@1 a=1", 1)}, Json{fault("s@1 a=1", 1), trial("s@1 a=1", 2, 2)}}) {
    const auto tried = tried_settings(seen);
    ASSERT_EQ(tried.size(), 1u);
    EXPECT_EQ(tried[0].fault, "died of signal 11");
    EXPECT_TRUE(knob_effects(tried).empty());
  }
}

TEST(KnobEffects, AreSortedByWhatTheWorstValueCosts) {
  const auto effects = knob_effects(tried_settings({trial("s@1 a=1 b=1 c=0", 0, 1.0), trial("s@1 a=1 b=2 c=0", 0, 1.1),
                                                    trial("s@1 a=2 b=1 c=0", 0, 0.5), trial("s@1 a=2 b=2 c=0", 0, 0.7),
                                                    trial("s@1 a=2 b=3 c=0", 0, 0.6), fault("s@1 a=3 b=1 c=1")}));
  ASSERT_EQ(effects.size(), 2u);  // neither schedule nor c
  EXPECT_EQ(effects[0].knob, "b");
  EXPECT_NEAR(effects[0].size(), 0.5, 1e-12);
  ASSERT_EQ(effects[0].values.size(), 3u);
  EXPECT_EQ(effects[0].values[1].value, "1");
  EXPECT_THAT(effects[0].values[1].ratios, ElementsAre(1.0, 0.5));
  EXPECT_EQ(effects[0].values[1].median(), 0.75);
  EXPECT_EQ(effects[1].knob, "a");
  EXPECT_NEAR(effects[1].size(), 0.4, 1e-12);
  ASSERT_EQ(effects[1].values.size(), 2u);
  EXPECT_EQ(effects[1].values[1].median(), 0.6);
}

}  // namespace
}  // namespace convsmith
