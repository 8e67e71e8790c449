"""What units, currencies, signs and letters are called in Korean, English, Chinese and Japanese.

Where the number does not come first, {} stands for it.
"""

from __future__ import annotations

import re

_UNITS = """
km/h | 시속 {} 킬로미터 | kilometers per hour | 每小时{}公里 | 時速{}キロメートル
mph | 시속 {} 마일 | miles per hour | 每小时{}英里 | 時速{}マイル
m/s | 초속 {} 미터 | meters per second | 每秒{}米 | 秒速{}メートル
km2 | 제곱킬로미터 | square kilometers | 平方公里 | 平方キロメートル
m2 | 제곱미터 | square meters | 平方米 | 平方メートル
cm2 | 제곱센티미터 | square centimeters | 平方厘米 | 平方センチメートル
m3 | 세제곱미터 | cubic meters | 立方米 | 立方メートル
km | 킬로미터 | kilometers | 公里 | キロメートル
cm | 센티미터 | centimeters | 厘米 | センチメートル
mm | 밀리미터 | millimeters | 毫米 | ミリメートル
nm | 나노미터 | nanometers | 纳米 | ナノメートル
m | 미터 | meters | 米 | メートル
ft | 피트 | feet | 英尺 | フィート
lbs | 파운드 | pounds | 磅 | ポンド
lb | 파운드 | pounds | 磅 | ポンド
oz | 온스 | ounces | 盎司 | オンス
kg | 킬로그램 | kilograms | 公斤 | キログラム
mg | 밀리그램 | milligrams | 毫克 | ミリグラム
g | 그램 | grams | 克 | グラム
t | 톤 | tons | 吨 | トン
ml | 밀리리터 | milliliters | 毫升 | ミリリットル
l | 리터 | liters | 升 | リットル
dl | 데시리터 | deciliters | 分升 | デシリットル
ha | 헥타르 | hectares | 公顷 | ヘクタール
kb | 킬로바이트 | kilobytes | 千字节 | キロバイト
mb | 메가바이트 | megabytes | 兆字节 | メガバイト
gb | 기가바이트 | gigabytes | 吉字节 | ギガバイト
tb | 테라바이트 | terabytes | 太字节 | テラバイト
ghz | 기가헤르츠 | gigahertz | 吉赫兹 | ギガヘルツ
mhz | 메가헤르츠 | megahertz | 兆赫兹 | メガヘルツ
khz | 킬로헤르츠 | kilohertz | 千赫兹 | キロヘルツ
hz | 헤르츠 | hertz | 赫兹 | ヘルツ
kw | 킬로와트 | kilowatts | 千瓦 | キロワット
w | 와트 | watts | 瓦 | ワット
kwh | 킬로와트시 | kilowatt hours | 千瓦时 | キロワットアワー
mah | 밀리암페어시 | milliamp hours | 毫安时 | ミリアンペアアワー
v | 볼트 | volts | 伏 | ボルト
db | 데시벨 | decibels | 分贝 | デシベル
kcal | 킬로칼로리 | kilocalories | 千卡 | キロカロリー
cal | 칼로리 | calories | 卡 | カロリー
°c | 도 | degrees Celsius | 摄氏度 | 度
°f | 화씨 {} 도 | degrees Fahrenheit | 华氏度 | 華氏{}度
° | 도 | degrees | 度 | 度
fps | 프레임 | frames per second | 帧每秒 | フレーム毎秒
ppm | 피피엠 | parts per million | 百万分之{} | ピーピーエム
hrs | 시간 | hours | 小时 | 時間
hr | 시간 | hours | 小时 | 時間
min | 분 | minutes | 分钟 | 分
sec | 초 | seconds | 秒 | 秒
ms | 밀리초 | milliseconds | 毫秒 | ミリ秒
"""
_MONEY = """
USD | 달러 | dollars | 美元 | ドル
EUR | 유로 | euros | 欧元 | ユーロ
GBP | 파운드 | pounds | 英镑 | ポンド
YEN | 엔 | yen | 元 | 円
JPY | 엔 | yen | 日元 | 円
KRW | 원 | won | 韩元 | ウォン
CNY | 위안 | yuan | 元 | 元
"""
_SIGNS = """
% | 퍼센트 | percent | 百分号 | パーセント
& | 앤드 | and | 和 | アンド
@ | 골뱅이 | at | 艾特 | アットマーク
+ | 플러스 | plus | 加 | プラス
= | 이퀄 | equals | 等于 | イコール
# | 샵 | number | 井号 | シャープ
° | 도 | degrees | 度 | 度
× | 곱하기 | times | 乘 | かける
÷ | 나누기 | divided by | 除以 | わる
"""
_KOREAN_LETTERS = (
    "에이 비 씨 디 이 에프 지 에이치 아이 제이 케이 엘 엠 엔 오 피 큐 알 에스 티 유 브이 더블유 엑스 와이 지"
)
_JAPANESE_LETTERS = (
    "エー ビー シー ディー イー エフ ジー エイチ アイ ジェー ケー エル エム エヌ オー ピー キュー "
    "アール エス ティー ユー ブイ ダブリュー エックス ワイ ゼット"
)

# Morning, afternoon and the hour
_HALVES = {"ko": ("오전 ", "오후 ", "시"), "zh": ("上午", "下午", "点"), "ja": ("午前", "午後", "時")}
_HALF_DAY = re.compile(r"(?<![\d.:])(1?\d)(:[0-5]\d)? ?([aApP])(?:\.[mM]\.|[mM](?![A-Za-z]))")


def _read(table: str) -> dict[str, dict[str, str]]:
    """language -> what stands in the first column -> its word."""
    rows = [line.split(" | ") for line in table.strip().splitlines()]
    return {
        language: {row[0]: row[column] for row in rows} for column, language in enumerate(("ko", "en", "zh", "ja"), 1)
    }


UNITS, MONEY, SIGNS = _read(_UNITS), _read(_MONEY), _read(_SIGNS)
LETTERS = {
    language: dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", names.split(), strict=True))
    for language, names in (("ko", _KOREAN_LETTERS), ("ja", _JAPANESE_LETTERS))
}


def say_half_days(text: str, language: str) -> str:
    """5:30pm and 5 a.m. as they are written in a language other than English: 오후 5:30, 오전 5시."""
    morning, afternoon, hour = _HALVES[language]
    return _HALF_DAY.sub(
        lambda found: f"{morning if found[3] in 'aA' else afternoon}{found[1]}{found[2] or hour}", text
    )


def say_signs(text: str, language: str) -> str:
    """Signs in words, with spaces around them where words have some."""
    around = " " if language in ("ko", "en") else ""
    for sign, word in SIGNS[language].items():
        text = text.replace(sign, f"{around}{word}{around}")
    return text
