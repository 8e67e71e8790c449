"""How tones change in running Mandarin: neutral tone, 一, 不, and third tones before third tones.

A rule sees the tones that the dictionary gives, one word at a time, then across words. Tones are 1 to 4, and 5 for the
neutral one.
Source: Chao, A Grammar of Spoken Chinese (1968), chapter 1; Duanmu, The Phonology of Standard Chinese (2007), on third
tones: by word, then across words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

NEUTRAL = 5


@dataclass(frozen=True)
class Syllable:
    character: str
    pinyin: str  # without its tone
    tone: int  # of the dictionary
    place: int  # in its word
    length: int  # of its word
    alone: bool = False  # whether the dictionary's phrases say nothing about it


# Words of two characters whose second one is neutral, beside those that end in 们, 子 or 头
_NEUTRAL = """
朋友 喜欢 东西 事情 衣服 先生 小姐 学生 大夫 护士 丈夫 父亲 母亲 亲戚 姑娘 媳妇 伙计 师傅 老婆 眼睛 耳朵 头发
眉毛 嘴巴 胳膊 指甲 脑袋 明白 清楚 知道 认识 告诉 商量 打听 打算 打扮 休息 收拾 招呼 照顾 答应 咳嗽 耽误 麻烦
漂亮 便宜 舒服 暖和 凉快 热闹 干净 聪明 糊涂 老实 厉害 马虎 结实 新鲜 客气 痛快 利索 大方 时候 早上 晚上 月亮
太阳 星星 云彩 地方 窗户 钥匙 玻璃 豆腐 粮食 点心 萝卜 西瓜 葡萄 石榴 黄瓜 核桃 蘑菇 芝麻 烧饼 消息 意思 故事
名字 力气 脾气 精神 态度 本事 毛病 规矩 道理 关系 功夫 工夫 生意 买卖 笑话 动静 机灵 行李 扫帚 抽屉 帐篷 灯笼
风筝 喇叭 棉花 骆驼 狐狸 蛤蟆 苍蝇 刺猬 牲口 畜生 蚂蚱 鹌鹑 部分 队伍 衙门 状元 秀才 裁缝 木匠 石匠 和尚 道士
什么 怎么 这么 那么 多么 看见 听见 出来 出去 进来 进去 回来 回去 起来 上来 下去 下来 爸爸 妈妈 哥哥 姐姐 弟弟
妹妹 爷爷 奶奶 叔叔 伯伯 婶婶 舅舅 姑姑 公公 婆婆 娃娃 宝宝 看看 想想 说说 听听 走走 玩玩 尝尝 写写 读读 问问
试试 坐坐 等等 找找 谈谈 聊聊 歇歇 谢谢 太太 星星 猩猩 蛐蛐 爷们 头髮 東西 媽媽 爺爺 認識 時候 謝謝 關係 衣裳 包袱
行李 折腾 嘀咕 琢磨 在乎 合同 稀罕 应酬 吩咐 疙瘩 委屈 连累 唠叨 念叨 称呼 奉承 记性 眼力
"""
_NEUTRAL_SECOND = frozenset(_NEUTRAL.split())
_SUFFIXES = frozenset("们子头")  # neutral at the end of a word of two or more, except:
_FULL = """
男子 女子 王子 太子 孔子 老子 孟子 庄子 弟子 电子 原子 分子 粒子 离子 质子 中子 因子 君子 才子 天子 臣子 父子
母子 鱼子 莲子 瓜子 种子 精子 卵子 游子 学子 赤子 带头 额头 街头 镜头 口头 巨头 山头 源头 埋头 低头 抬头 点头
摇头 回头 钟头 年头 开头 心头 关头
"""
_FULL_SUFFIX = frozenset(_FULL.split())
_DIGITS = frozenset("零〇一二三四五六七八九幺")
_COUNTED_IN_ORDER = frozenset("月号日楼班级等流线环期")


def change_tones(syllables: Sequence[Syllable]) -> list[int]:
    """(syllables,) of one phrase, without a mark between them -> the tone of each as it is spoken."""
    tones = [syllable.tone for syllable in syllables]
    words = _words(syllables)
    for start, end in words:
        _make_neutral(syllables, tones, start, end)
    for place in range(len(syllables)):
        if syllables[place].character == "一":
            tones[place] = _one(syllables, tones, place)
        elif syllables[place].character == "不":
            tones[place] = _not(syllables, tones, place)
    _third_tones(syllables, tones, words)
    return tones


def _words(syllables: Sequence[Syllable]) -> list[tuple[int, int]]:
    starts = [place for place, syllable in enumerate(syllables) if not syllable.place]
    return list(zip(starts, [*starts[1:], len(syllables)], strict=True))


def _make_neutral(syllables: Sequence[Syllable], tones: list[int], start: int, end: int) -> None:
    word = "".join(syllable.character for syllable in syllables[start:end])
    for at in range(len(word) - 1):
        pair = word[at : at + 2]
        if pair in _NEUTRAL_SECOND:
            tones[start + at + 1] = NEUTRAL
    if len(word) > 1 and word[-1] in _SUFFIXES and word[-2:] not in _FULL_SUFFIX and word[-1] != word[-2]:
        tones[end - 1] = NEUTRAL


def _one(syllables: Sequence[Syllable], tones: Sequence[int], place: int) -> int:
    """一: first tone as a digit, an ordinal, or at the end; 2 before a fourth tone; 4 before the others."""
    before = syllables[place - 1] if place else None
    after = syllables[place + 1] if place + 1 < len(syllables) else None
    if after is None or after.character in _DIGITS or (before and before.character in "第初"):
        return 1
    if after.character in "百千万亿":
        return 2 if after.tone == 4 else 4
    if after.character == "十" or (before and before.character in _DIGITS | set("十百千万亿")):
        return 1
    if after.character in _COUNTED_IN_ORDER and after.length > 1:
        return 1
    following = syllables[place + 2].character if place + 2 < len(syllables) else ""
    if after.character == "年" and following == "级":
        return 1
    again = place > 1 and syllables[place - 2].character == "一"  # 一个一个
    if before and before.character == after.character and not again:
        return NEUTRAL  # 看一看
    own = syllables[place]
    if own.length > 1 and own.place == own.length - 1:
        return 1  # 统一, 万一
    return 2 if after.tone == 4 or after.character == "个" else 4


def _not(syllables: Sequence[Syllable], tones: Sequence[int], place: int) -> int:
    """不: neutral inside 好不好 and 对不起, 2 before a fourth tone, else 4."""
    before = syllables[place - 1] if place else None
    after = syllables[place + 1] if place + 1 < len(syllables) else None
    own = syllables[place]
    inside = own.length == 3 and own.place == 1
    again = own.length < 3 and before is not None and after is not None and before.character == after.character
    if before and after and (inside or again):
        return NEUTRAL
    return 2 if after is not None and tones[place + 1] == 4 else 4


def _third_tones(syllables: Sequence[Syllable], tones: list[int], words: Sequence[tuple[int, int]]) -> None:
    """3 3 is spoken 2 3: inside a word, by its parts; then between words where one of them is a single syllable."""
    for start, end in words:
        for first, last in _parts(syllables, start, end):
            _rise(tones, first, last)
        _rise(tones, start, end)
    for (start, middle), (_, end) in pairwise(words):
        if middle - start == 1 or end - middle == 1:
            _rise(tones, middle - 1, middle + 1)


def _rise(tones: list[int], start: int, end: int) -> None:
    for place in range(start, end - 1):
        if tones[place] == tones[place + 1] == 3:
            tones[place] = 2


def _parts(syllables: Sequence[Syllable], start: int, end: int) -> list[tuple[int, int]]:
    """The two-syllable words inside a longer one: 展览|馆 but 小|组长."""
    import rjieba

    word = "".join(syllable.character for syllable in syllables[start:end])
    if len(word) < 3:
        return []
    inside = [part for part in rjieba.cut_for_search(word) if 1 < len(part) < len(word)]
    return [(start + word.index(part), start + word.index(part) + len(part)) for part in inside]
