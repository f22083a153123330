"""Names of machines by DNS: `web.vm` for the machine called web, and back from its address.

`zone` is what there is to say, `message` how it is said, `server` who says it, `routing` how the host comes to ask.
Importing any of them costs little; dnslib is imported with the first question.
"""
