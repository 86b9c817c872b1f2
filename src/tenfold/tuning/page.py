PAGE = "tune.html"
def write(result): pass
