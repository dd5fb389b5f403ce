"""Invented people and the words that stand for what identifies them, in many scripts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "kr", "zv", "tr", "gl", "dr")
VOWELS = ("a", "e", "i", "o", "u", "ai", "ou", "ei")
ENDS = ("k", "l", "m", "n", "r", "x", "th", "sk", "rg", "nd")
ACCENTS = str.maketrans("aeiounsk", "äéîöüñßç")
HANGUL = (
    "가각간강거건경고공구권규기길나남노다단대도동라란려로류리림마만명모무문미민박배백범병보복봉산상서석선"
    "설성세소손송수숙순슬승시식신실심아안애양어연영예오옥온완용우운원유윤율은을의이인일임자장재전정조종주"
    "준지진차찬창채천철초춘치태하한해현형호홍화환황효훈희"
)
KANJI = (
    "佐藤鈴木高橋田中渡辺伊山本村小林加吉松井斎清森池石川前岡長谷近遠坂青福西太三原野金武上杉千葉久保今市"
    "大島平工上丸浜北崎宮横土屋服部樋口岩新熊水野桜永"
)
KATAKANA = "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワ"
HANZI = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎"
    "余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹"
)
CYRILLIC = str.maketrans("abdefgiklmnoprstuvzxh", "абдефгиклмнопрстувзхч")


@dataclass(frozen=True)
class Script:
    """How a file writes text: SpecificCharacterSet, and the letters that names are made of."""

    name: str
    character_set: tuple[str, ...]
    letters: str  # native letters, '' if words are made of Latin syllables


SCRIPTS = (
    Script("ascii", (), ""),
    Script("latin-1", ("ISO_IR 100",), "accents"),
    Script("hangul iso-2022", ("", "ISO 2022 IR 149"), HANGUL),
    Script("hangul utf-8", ("ISO_IR 192",), HANGUL),
    Script("japanese ir 87", ("", "ISO 2022 IR 87"), KANJI),
    Script("japanese ir 13 and 87", ("ISO 2022 IR 13", "ISO 2022 IR 87"), KANJI),
    Script("gb18030", ("GB18030",), HANZI),
    Script("cyrillic", ("ISO_IR 144",), "cyrillic"),
    Script("utf-8 accents", ("ISO_IR 192",), "accents"),
)


@dataclass(frozen=True)
class Person:
    """An invented patient. `number`: 8 digits that stand in PatientID; `phone`: 11 digits; `resident`: 13."""

    family: str
    given: str
    native_family: str
    native_given: str
    phonetic: str
    number: str
    phone: str
    resident: str
    birth: date
    first_study: date
    script: Script


def word(random: Random, syllables: int = 3) -> str:
    """A word of no language, capitalised, six letters or more: 'Zvoraikel'."""
    while True:
        made = "".join(random.choice(ONSETS) + random.choice(VOWELS) for _ in range(syllables))
        made += random.choice(ENDS)
        if len(made) >= 6:
            return made.capitalize()


def native(random: Random, script: Script) -> str:
    """A word in the letters of the script, long enough not to occur in bytes by chance."""
    if script.letters == "accents":
        return word(random).translate(ACCENTS)
    if script.letters == "cyrillic":
        return word(random).lower().translate(CYRILLIC)
    if not script.letters:
        return word(random)
    return "".join(random.choice(script.letters) for _ in range(4))


def person(random: Random, script: Script) -> Person:
    birth = date(1931, 1, 1) + timedelta(days=random.randrange(60 * 365))
    return Person(
        family=word(random),
        given=word(random),
        native_family=native(random, script),
        native_given=native(random, script),
        phonetic="".join(random.choice(KATAKANA if script.letters == KANJI else HANGUL) for _ in range(4)),
        number=str(random.randrange(20_000_000, 99_999_999)),
        phone=f"010{random.randrange(20_000_000, 99_999_999)}",
        resident=f"{birth:%y%m%d}{random.randrange(1, 5)}{random.randrange(100_000, 999_999)}",
        birth=birth,
        first_study=date(2009, 1, 1) + timedelta(days=random.randrange(12 * 365)),
        script=script,
    )
