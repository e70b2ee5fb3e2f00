"""One page about one run or several, that needs nothing beside it: no script, no address outside itself.

collect     the runs named, their evaluations, their bases, and what they cost
curves      what changed during a training, drawn
scores      how right each set of answers is
gallery     some questions with their pictures and the answers to them
page        all of it through templates/page.html, where every text is escaped
"""
