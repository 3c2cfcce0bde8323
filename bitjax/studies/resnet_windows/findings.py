"""x"""
def judge(results): return []
