"""What hospitals burn into pictures, made up: names, numbers, dates, places, settings. Nobody's data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SYLLABLES = (
    "BA CER DON EL FRAN GOR HAN IS JON KEL LOR MAR NIS OL PET QUI ROS SAN TOR UL VAN WIL XE YOR ZA MI RA TE "
    "SON MAN LEY WOOD STEIN BERG TON"
)
PLACES = "HOSPITAL CLINIC MEDICAL CENTER CTR UNIV RADIOLOGY ULTRASOUND DEPT IMAGING GENERAL CITY WEST"
MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"
SETTINGS = (
    "MI 1.1|TIS0.4|TIB 0.2|FR 28Hz|2D|Gen|C5-1|Gn 60|kV 120|mA 240|SL 5.0|TE 88|TR 3200|FoV 250|"
    "W 400 L 40|Se: 4|Im: 17/32|AP|LAT|ERECT|SUPINE|PORTABLE|Zoom 1.2|x2|Page 1/3|bpm|18cm|HR 72|R L|"
    "Depth 4 cm|3cm M12L"
)
FAMILY_NAMES = (
    "김이박최정강조윤장임한오서신권황안송류홍전고문양손배백허남심노하곽성차주우구민유진지엄채원천방"
)
HANGUL_WORDS = (
    "병원 환자 성명 생년월일 서울대학교 의료원 영상의학과 촬영일 남자 여자 검사 번호 흉부 복부 초음파"
)
KANJI = "山田中村佐藤鈴木高橋伊渡辺小林加吉川病院東京大学患者検査年月日男女放射線科医師名前"
KANA = "".join(map(chr, [*range(0x3042, 0x3094), *range(0x30A2, 0x30F4)]))
CYRILLIC = "АБВГДЕЖЗИКЛМНОПРСТУФХЦЧШЩЭЮЯабвгдежзиклмнопрстуфхцчшщыьэюя"
ANYTHING = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:;-/#()[]^_+=%&*'\""


def _digits(rng: np.random.Generator, low: int, high: int) -> str:
    return "".join(str(digit) for digit in rng.integers(0, 10, int(rng.integers(low, high + 1))))


def _letters(rng: np.random.Generator, alphabet: str, low: int, high: int) -> str:
    return "".join(alphabet[int(i)] for i in rng.integers(0, len(alphabet), int(rng.integers(low, high + 1))))


def _one(rng: np.random.Generator, choices: list[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _name(rng: np.random.Generator) -> str:
    family = "".join(_one(rng, SYLLABLES.split()) for _ in range(int(rng.integers(1, 4))))
    given = "".join(_one(rng, SYLLABLES.split()) for _ in range(int(rng.integers(1, 3))))
    text = family + _one(rng, ["^", ", ", " ", ","]) + given
    return _one(rng, [text, text.title(), text.lower(), text])


def _number(rng: np.random.Generator) -> str:
    prefix = _one(rng, ["ID: ", "ID", "MRN ", "Acc# ", "", "", "PID:", "No. "])
    return prefix + _digits(rng, 4, 12)


def _date(rng: np.random.Generator) -> str:
    year, month, day = int(rng.integers(1930, 2027)), int(rng.integers(1, 13)), int(rng.integers(1, 29))
    hour, minute = int(rng.integers(0, 24)), int(rng.integers(0, 60))
    month_name = _one(rng, MONTHS.split())
    forms = [
        f"{year}-{month:02}-{day:02}",
        f"{day:02}/{month:02}/{year}",
        f"{year}.{month:02}.{day:02} {hour:02}:{minute:02}",
        f"{hour:02}:{minute:02}:{day:02}",
        f"DOB {month}/{day}/{year}",
        f"{day}-{month_name}-{year}",
        f"{int(rng.integers(1, 99)):03}Y {_one(rng, ['M', 'F'])}",
    ]
    return _one(rng, forms)


def _place(rng: np.random.Generator) -> str:
    text = " ".join(_one(rng, PLACES.split()) for _ in range(int(rng.integers(2, 4))))
    return _one(rng, [text, text.title()])


def _mixed(rng: np.random.Generator) -> str:
    return _letters(rng, ANYTHING, 2, 12)


def _latin(rng: np.random.Generator) -> str:
    kinds: list[Callable[[np.random.Generator], str]] = [_name, _number, _date, _place, _mixed]
    if rng.random() < 0.2:
        return _one(rng, SETTINGS.split("|"))
    return kinds[int(rng.integers(len(kinds)))](rng)


def _hangul(rng: np.random.Generator) -> str:
    given = "".join(chr(0xAC00 + int(i)) for i in rng.integers(0, 11172, int(rng.integers(1, 4))))
    name = _letters(rng, FAMILY_NAMES, 1, 1) + given
    choices = [
        name,
        f"{_one(rng, HANGUL_WORDS.split())} {name}",
        f"{name} {_digits(rng, 6, 8)}",
        f"{name}({_date(rng)})",
    ]
    return _one(rng, [*choices, " ".join(_one(rng, HANGUL_WORDS.split()) for _ in range(2))])


def _japanese(rng: np.random.Generator) -> str:
    return _one(
        rng,
        [
            _letters(rng, KANJI, 2, 7),
            _letters(rng, KANA, 3, 8),
            f"{_letters(rng, KANJI, 2, 4)} {_digits(rng, 4, 8)}",
        ],
    )


def _cyrillic(rng: np.random.Generator) -> str:
    text = _letters(rng, CYRILLIC, 3, 10)
    return _one(rng, [text.upper(), text, f"{text} {_digits(rng, 2, 6)}"])


SCRIPTS: dict[str, Callable[[np.random.Generator], str]] = {
    "latin": _latin,
    "hangul": _hangul,
    "japanese": _japanese,
    "cyrillic": _cyrillic,
}


def line(rng: np.random.Generator, shares: dict[str, float]) -> tuple[str, str]:
    """(script, text) of one line of at least two characters; `shares` says how often each script comes."""
    script = str(rng.choice(list(shares), p=list(shares.values())))
    text = SCRIPTS[script](rng).strip()
    return script, text if len(text) > 1 else text + "10"
