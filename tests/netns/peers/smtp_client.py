"""Sends a message with smtplib; prints what the server said, one line each."""

import smtplib
import sys

with smtplib.SMTP(sys.argv[1], int(sys.argv[2]), local_hostname="client", timeout=8) as mail:
    print(mail.ehlo()[1].decode())
    mail.mail("from@test")
    mail.rcpt("to@test")
    print(mail.data(b"x" * 70 + b"\r\n")[1].decode())
