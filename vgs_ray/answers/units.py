r"""Units: names in several languages, products and powers (`km/h`, `cm^2`), conversion, factors such as `million`. Pure."""

from __future__ import annotations

import re
from fractions import Fraction

Unit = frozenset[tuple[str, int]]
"""Names with their powers: `km/h` is {("km", 1), ("h", -1)}. A word that is not a known unit has the name `?word`."""

NOTHING: Unit = frozenset()
UNIT_LETTERS = "mgshlLKNJWV"

# name | dimension | size in the first unit of the dimension | other spellings
_TABLE = """
m|length|1|meter metre meters metres 米 公尺 メートル 미터
mm|length|1/1000|millimeter millimetre 毫米 公厘 ミリメートル 밀리미터
cm|length|1/100|centimeter centimetre 厘米 公分 センチメートル センチ 센티미터
dm|length|1/10|decimeter decimetre 分米
km|length|1000|kilometer kilometre kilometers 千米 公里 キロメートル 킬로미터
in|length|127/5000|inch inches 英寸 インチ 인치
ft|length|381/1250|foot feet 英尺 フィート 피트
yd|length|1143/1250|yard 码
mi|length|1609344/1000|mile 英里 マイル 마일
nm|length|1/1000000000|nanometer nanometre 纳米
g|mass|1|gram gramme 克 グラム 그램
mg|mass|1/1000|milligram 毫克 ミリグラム
kg|mass|1000|kilogram kilo kilogramme 千克 公斤 キログラム キロ 킬로그램
ton|mass|1000000|tonne 吨 噸 トン 톤
lb|mass|45359237/100000|lbs pound-mass 磅 ポンド
oz|mass|45359237/1600000|ounce 盎司
s|time|1|sec second 秒 초
ms|time|1/1000|millisecond 毫秒
min|time|60|minute mins 分钟 分鐘 分間 분
h|time|3600|hr hour hrs 小时 小時 时 時間 시간
day|time|86400|days 天 日 日間 일
week|time|604800|wk 周 週 週間 星期 주
month|months|1|mo 个月 個月 月 か月 ヶ月 개월 월
year|months|12|yr years 年 年間 년 岁 歳 세
l|volume|1|liter litre L 升 公升 リットル 리터
ml|volume|1/1000|milliliter millilitre mL 毫升 ミリリットル 밀리리터
gal|gallons|1|gallon 加仑
qt|gallons|1/4|quart
pt|gallons|1/8|pint
cup|cups|1|
cent|dollars|1/100|¢ 美分 セント penny pennies
dollar|dollars|1|\\$ $ usd buck 美元 ドル 달러
euro|euros|1|€ eur 欧元 ユーロ
pound|pounds|1|£ gbp 英镑
pence|pounds|1/100|p
yen|yens|1|¥ jpy 日元 円 엔
yuan|yuans|1|元 块 圆 rmb cny 人民币
jiao|yuans|1/10|角
fen|yuans|1/100|
won|wons|1|원 ₩ krw
rupee|rupees|1|₹ rs inr 卢比
degree|angle|1|deg ^\\circ 度 도
arcminute|angle|1/60|arcmin
arcsecond|angle|1/3600|arcsec
radian|radians|1|rad 弧度
revolution|revolutions|1|rev
percent|percent|1|% \\% pct percentage 퍼센트 パーセント
celsius|temperature|1|^\\circC ^\\circ\\text{C} 摄氏度
fahrenheit|temperatureF|1|^\\circF ^\\circ\\text{F}
K|temperatureK|1|kelvin kelvins
mph|speed|1397/3125|
kph|speed|5/18|kmph kmh
N|force|1|newton 牛 牛顿
J|energy|1|joule 焦耳 焦
kJ|energy|1000|kilojoule
W|power|1|watt 瓦 瓦特
kW|power|1000|kilowatt
kWh|energy|3600000|
V|voltage|1|volt 伏 伏特
A|current|1|ampere amp amps 安培
ohm|resistance|1|\\Omega 欧姆
Pa|pressure|1|pascal 帕
kPa|pressure|1000|
atm|pressure|101325|
Hz|frequency|1|hertz 赫兹
mol|amount|1|mole 摩尔
acre|acres|1|英亩
ha|hectares|1|hectare 公顷
unit|unit|1|units 单位 단위
piece|count|1|个 個 個 件 只 张 张 本 枚 条 台 根 块儿 개 つ 棵 支 粒 颗 箱 瓶 盒 杯 页 套 间 把 辆 头 匹 朵 份
person|people|1|persons people 人 名 位 명 사람
time|times|1|次 回 遍 번 회
kind|kinds|1|种 種 種類 通り 가지
prime|primes|1|'
doubleprime|doubleprimes|1|''
"""


def _rows() -> list[list[str]]:
    return [line.split("|") for line in _TABLE.strip().splitlines()]


_DIMENSIONS = {name: (dimension, Fraction(size)) for name, dimension, size, _ in _rows()}
_NAMES = {
    spelling: name for name, _, _, spellings in _rows() for spelling in [name, *spellings.replace("\\\\", "\\").split()]
}
_LOWER = {spelling.casefold(): name for spelling, name in reversed(_NAMES.items()) if len(spelling) > 1}
_PRIMES = {"prime": {"ft", "arcminute", "min"}, "doubleprime": {"in", "arcsecond", "s"}}

_COMPOUND = {"mph": (("mi", 1), ("h", -1)), "kph": (("km", 1), ("h", -1))}

MAGNITUDES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "bn": 10**9, "tn": 10**12, "score": 20, "dozen": 12, "lakh": 10**5, "crore": 10**7,  # noqa: E501
    "十": 10, "百": 100, "千": 1000, "万": 10**4, "萬": 10**4, "億": 10**8, "亿": 10**8, "만": 10**4, "억": 10**8, "천": 1000,
}  # fmt: skip
_SQUARED = {
    "square": 2,
    "sq": 2,
    "squared": 2,
    "cubic": 3,
    "cu": 3,
    "cubed": 3,
    "平方": 2,
    "立方": 3,
    "제곱": 2,
    "세제곱": 3,
}
_PIECE = re.compile(
    r"(?P<power>\^\{?(-?\d+)\}?)|(?P<over>/|\bper\b|每)|(?P<times>\\cdot|\\times|\*|\.)|(?P<word>\^\\circ(?:\s*[CF](?![A-Za-z]))?|[A-Za-z]+|''|'|\\?[$%]|[€£¥₩₹¢]|\\Omega)"
    r"|(?P<cjk>[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+)|(?P<space>[\s()]+)"
)


def name_of(word: str) -> str | None:
    """The name of a unit from one of its spellings, singular or plural: `metres` gives `m`. None for another word."""
    word = word.replace(" ", "")
    for candidate in (word, word.removesuffix("s"), word.removesuffix("es")):
        if candidate and (candidate in _NAMES or (len(candidate) > 1 and candidate.casefold() in _LOWER)):
            return _NAMES.get(candidate) or _LOWER[candidate.casefold()]
    return None


def magnitude_of(word: str) -> int | None:
    """The factor of a word: 10**6 for `million`. None for another word."""
    return MAGNITUDES.get(word.casefold()) or MAGNITUDES.get(word.casefold().removesuffix("s"))


def singular(word: str) -> str:
    """A noun in the singular: `apples` gives `apple`. A word with capitals inside, such as MW, is an abbreviation and stays."""
    if word[1:] != word[1:].casefold():
        return word
    word = word.casefold()
    return {"children": "child", "men": "man", "women": "woman"}.get(word) or (
        word[:-1] if word[-1:] == "s" and word[-2:] != "ss" else word
    )


def parse_unit(text: str) -> tuple[int, Unit] | None:
    r"""Read a product or quotient of units: `million km/h` is (10**6, {("km", 1), ("h", -1)}).

    Returns:
        The factor and the unit. None if the text contains anything that is not part of a unit.
    """
    scale, powers, sign, raised, end = 1, dict[str, int](), 1, 1, 0
    last: str | None = None
    for piece in _PIECE.finditer(text):
        if piece.start() != end:
            return None
        end = piece.end()
        if piece["power"]:
            if last is None:
                return None
            powers[last] += sign * (int(piece[2]) - 1)
        elif piece["over"]:
            sign = -1
        elif piece["word"] or piece["cjk"]:
            for word in [piece["word"]] if piece["word"] else _cjk(piece["cjk"]):
                if magnitude_of(word) and not powers:
                    scale *= magnitude_of(word) or 1
                elif word.casefold() in _SQUARED and last and word.casefold().endswith("ed"):
                    powers[last] *= _SQUARED[word.casefold()]
                elif word.casefold() in _SQUARED:
                    raised = _SQUARED[word.casefold()]
                elif word.casefold() not in ("of", "the", "a", "an", "degrees") or not powers:
                    last = name_of(word) or "?" + singular(word)
                    for name, power in _COMPOUND.get(last, ((last, 1),)):
                        powers[name] = powers.get(name, 0) + sign * raised * power
                    raised = 1
    if end != len(text) or not (powers or scale > 1):
        return None
    return scale, frozenset((name, power) for name, power in powers.items() if power)


def _cjk(run: str) -> list[str]:
    """Split Chinese, Japanese or Korean text into words: the longest known unit at each position, else the rest of the text."""
    words = []
    while run:
        size = next(
            (n for n in range(len(run), 0, -1) if run[:n] in _NAMES or run[:n] in MAGNITUDES or run[:n] in _SQUARED),
            len(run),
        )
        words.append(run[:size])
        run = run[size:]
    return words


def is_known(unit: Unit) -> bool:
    return not any(name.startswith("?") for name, _ in unit)


def generic(unit: Unit) -> bool:
    """Whether a unit carries no information: it is omitted, `units`, or `pieces`."""
    return all(name in ("unit", "piece") for name, _ in unit)


def units_equal(first: Unit, second: Unit) -> bool | None:
    """Whether two units are equal. An omitted unit equals any other: `12` and `12 cm`.

    Returns:
        None if a word is not a known unit, or if one side has the sign ' or '' and the other has no unit.
    """
    if first == second or _is_prime_of(first, second) or _is_prime_of(second, first):
        return True
    if any(name in _PRIMES for unit in (first, second) for name, _ in unit) and NOTHING in (first, second):
        return None
    if generic(first) or generic(second):
        powers = [{power for _, power in unit} for unit in (first, second)]
        return bool(not first or not second or powers[0] == powers[1])
    return False if is_known(first) and is_known(second) else None


def _is_prime_of(first: Unit, second: Unit) -> bool:
    """Whether the first is ' or '' as a sign for the second: `5'` may be 5 feet, arcminutes or minutes."""
    return len(first) == len(second) == 1 and next(iter(second))[0] in _PRIMES.get(next(iter(first))[0], ())


def dimension_and_size(unit: Unit) -> tuple[frozenset[tuple[str, int]], Fraction] | None:
    """The dimension of a unit and its size in base units, for conversion. None if a word is not a known unit."""
    if not is_known(unit):
        return None
    size, dimensions = Fraction(1), dict[str, int]()
    for name, power in unit:
        dimension, factor = _DIMENSIONS[name]
        size *= factor**power
        dimensions[dimension] = dimensions.get(dimension, 0) + power
    return frozenset(item for item in dimensions.items() if item[1]), size
