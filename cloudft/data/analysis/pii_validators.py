"""Validate cards, IBANs, phone numbers, IP addresses and tokens by more than their format.

Each function takes a candidate and returns how many characters, from its beginning, are a valid
one: 0 if none are. The rest may be words that follow it.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator

CARD_NETWORKS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[689]\d)\d{11}"  # Diners Club
    r"|35\d{14}"  # JCB
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}(?:\d{3})?"  # Discover
    r"|62\d{14,17}"  # UnionPay
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{8,15}"  # Maestro
)
"""Prefixes and lengths of the networks' numbers (ISO/IEC 7812; the list of issuer ranges in
https://en.wikipedia.org/wiki/Payment_card_number)."""
MIN_IBAN_LENGTH = 15
"""Norway's (ISO 13616)."""


def match_card(text: str) -> int:
    """Match a payment card's number: a network's prefix and length, and Luhn's check digit."""
    from stdnum import luhn

    digits = "".join(filter(str.isdecimal, text))
    known = digits.isascii() and CARD_NETWORKS.fullmatch(digits)
    return len(text) if known and luhn.is_valid(digits) else 0


def match_iban(text: str) -> int:
    """Match a bank account's number: its country's format, and its remainder by 97."""
    from stdnum import iban

    for end in _word_ends(text):
        number = "".join(text[:end].split())
        if len(number) >= MIN_IBAN_LENGTH and iban.is_valid(number, check_country=False):
            return end
    return 0


def match_phone(text: str) -> int:
    """Match a phone number that its country assigns (libphonenumber); without +, the USA's."""
    import phonenumbers

    for end in _word_ends(text):
        try:
            number = phonenumbers.parse(text[:end], None if text.startswith("+") else "US")
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number):
            return end
    return 0


def _word_ends(text: str) -> Iterator[int]:
    """Yield where the text could end: after each group, the last one first."""
    yield len(text)
    for match in reversed(list(re.finditer(r"[\s./-]+", text))):
        yield match.start()


def match_ip(text: str) -> int:
    """Match a public IP address: private, reserved and documentation addresses are no one's."""
    try:
        return len(text) if ipaddress.ip_address(text).is_global else 0
    except ValueError:
        return 0


def match_jwt(text: str) -> int:
    """Match all of a JSON web token, if its header is a JSON object."""
    header = text.partition(".")[0].rstrip("=")
    try:
        decoded = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
    except (binascii.Error, ValueError):
        return 0
    return len(text) if decoded.startswith(b"{") and decoded.rstrip().endswith(b"}") else 0
